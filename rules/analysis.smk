# The priority starts this rule before the expensive jobs. There is no report without it.
rule check_leakage:
    input:
        unpack(stage["check_leakage"].inputs),
    output:
        **stage["check_leakage"].outputs,
    log:
        stage["check_leakage"].log,
    priority: 100
    params:
        code=stage["check_leakage"].code,
        spec=stage["check_leakage"].params,
    script:
        "../workflow/scripts/check_leakage.py"


rule summarize:
    input:
        unpack(stage["summarize"].inputs),
    output:
        **stage["summarize"].outputs,
    log:
        stage["summarize"].log,
    params:
        code=stage["summarize"].code,
        spec=stage["summarize"].params,
    script:
        "../workflow/scripts/summarize.py"


rule collect:
    input:
        unpack(stage["collect"].inputs),
    output:
        **stage["collect"].outputs,
    log:
        stage["collect"].log,
    params:
        code=stage["collect"].code,
        spec=stage["collect"].params,
    script:
        "../workflow/scripts/collect.py"


# `probe` makes the analyses that ask an arm or record its activations, and so runs a model; `analyze` makes the others.
rule probe:
    input:
        unpack(stage["probe"].inputs),
    output:
        **stage["probe"].outputs,
    log:
        stage["probe"].log,
    wildcard_constraints:
        analysis=of("probe", "analysis"),
    resources:
        device=experiment.config.engine.device,
    params:
        code=stage["probe"].code,
        spec=stage["probe"].params,
    script:
        "../workflow/scripts/probe.py"


rule analyze:
    input:
        unpack(stage["analyze"].inputs),
    output:
        **stage["analyze"].outputs,
    log:
        stage["analyze"].log,
    wildcard_constraints:
        analysis=of("analyze", "analysis"),
    params:
        code=stage["analyze"].code,
        spec=stage["analyze"].params,
    script:
        "../workflow/scripts/analyze.py"


rule database:
    input:
        unpack(stage["database"].inputs),
    output:
        **stage["database"].outputs,
    log:
        stage["database"].log,
    params:
        code=stage["database"].code,
        spec=stage["database"].params,
    script:
        "../workflow/scripts/database.py"
