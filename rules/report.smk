rule plot:
    input:
        tables=lambda w: experiment.chart_inputs(w.chart),
        caption="resources/captions/{chart}.md",
    output:
        svg=f"{RESULTS}/charts/{{chart}}.svg",
        caption=f"{RESULTS}/charts/{{chart}}.md",
    params:
        code=lambda w: experiment.code("plot", ("charts", w.chart)),
        spec=lambda w: report_facts.chart_params(experiment, w.chart),
    script:
        "../workflow/scripts/plot.py"


rule report:
    input:
        **experiment.tables(),
        charts=[f"{RESULTS}/charts/{chart}.svg" for chart in experiment.config.charts],
        captions=[f"{RESULTS}/charts/{chart}.md" for chart in experiment.config.charts],
        template="resources/report.html.jinja",
        assets=["resources/report.css", "resources/report.js"],
    output:
        f"{RESULTS}/report.html",
    params:
        code=experiment.code("report"),
        spec=report_facts.report_params(experiment),
    script:
        "../workflow/scripts/report.py"
