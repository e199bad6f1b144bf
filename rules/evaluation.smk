# `generate` runs the model and `score` does not, so that a fix of a score never generates again.
rule generate:
    input:
        unpack(stage["generate"].inputs),
    output:
        **stage["generate"].outputs,
    log:
        stage["generate"].log,
    benchmark:
        stage["generate"].benchmark
    resources:
        device=experiment.config.engine.device,
    params:
        code=stage["generate"].code,
        spec=stage["generate"].params,
    script:
        "../workflow/scripts/generate.py"


# A judge is an arm like any other. Its questions are in the params, and the scores' code is not: when a score reads the
# answers in a new way, no question is asked again.
rule judge:
    input:
        unpack(stage["judge"].inputs),
    output:
        **stage["judge"].outputs,
    log:
        stage["judge"].log,
    benchmark:
        stage["judge"].benchmark
    wildcard_constraints:
        eval=of("judge", "eval"),
    resources:
        device=experiment.config.engine.device,
    params:
        code=stage["judge"].code,
        spec=stage["judge"].params,
    script:
        "../workflow/scripts/judge.py"


rule score:
    input:
        unpack(stage["score"].inputs),
    output:
        **stage["score"].outputs,
    log:
        stage["score"].log,
    params:
        code=stage["score"].code,
        spec=stage["score"].params,
    script:
        "../workflow/scripts/score.py"
