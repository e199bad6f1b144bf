rule plot:
    input:
        unpack(stage["plot"].inputs),
    output:
        **stage["plot"].outputs,
    log:
        stage["plot"].log,
    params:
        code=stage["plot"].code,
        spec=stage["plot"].params,
    script:
        "../workflow/scripts/plot.py"


rule report:
    input:
        unpack(stage["report"].inputs),
    output:
        **stage["report"].outputs,
    log:
        stage["report"].log,
    params:
        code=stage["report"].code,
        spec=stage["report"].params,
    script:
        "../workflow/scripts/report.py"
