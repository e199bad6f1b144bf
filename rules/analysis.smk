# Leakage is judged by content, so it needs the rows; it is started before the expensive jobs; without it there is no report.
rule check_leakage:
    input:
        datasets=experiment.leakage_inputs(),
    output:
        f"{RESULTS}/tables/contamination.parquet",
    priority: 100
    params:
        code=experiment.code("check_leakage"),
        spec=experiment.leakage_params(),
    script:
        "../workflow/scripts/check_leakage.py"


rule summarize:
    input:
        scores=[experiment.scores(run) for run in experiment.runs],
    output:
        summary=f"{RESULTS}/tables/summary.parquet",
        comparisons=f"{RESULTS}/tables/comparisons.parquet",
    params:
        code=experiment.code("summarize"),
        spec=experiment.summary_params(),
    script:
        "../workflow/scripts/summarize.py"


rule collect:
    input:
        manifests=experiment.fitted_manifests(),
        attempts=[experiment.attempts(name) for name in experiment.datasets(synthesised=True)],
        generations=[experiment.generations(run) for run in experiment.runs],
        judgements=[experiment.judgements(run) for run in experiment.judged],
    output:
        costs=f"{RESULTS}/tables/costs.parquet",
        curves=f"{RESULTS}/tables/curves.parquet",
        coefficients=f"{RESULTS}/tables/coefficients.parquet",
        synthesis=f"{RESULTS}/tables/synthesis.parquet",
    params:
        code=experiment.code("collect"),
        spec=experiment.collect_params(),
    script:
        "../workflow/scripts/collect.py"


rule analyze:
    input:
        manifests=lambda w: experiment.analysis_inputs(w.analysis),
    output:
        f"{RESULTS}/analyses/{{analysis}}.parquet",
    params:
        code=lambda w: experiment.analysis_code(w.analysis),
        spec=lambda w: experiment.analysis_params(w.analysis),
    script:
        "../workflow/scripts/analyze.py"


rule database:
    input:
        **experiment.tables(),
    output:
        f"{RESULTS}/imprint.duckdb",
    params:
        code=experiment.code("database"),
    script:
        "../workflow/scripts/database.py"
