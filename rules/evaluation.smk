# `generate` runs the model and `score` does not, so that a fix of a score never generates again.
rule generate:
    input:
        unpack(stage["generate"].inputs),
    output:
        **stage["generate"].outputs,
    log:
        stage["generate"].log,
    wildcard_constraints:
        arm=of("generate", "arm"),
    resources:
        device=experiment.config.engine.device,
        scores=stage["generate"].scores,
    params:
        code=stage["generate"].code,
        spec=stage["generate"].params,
    script:
        "../workflow/scripts/generate.py"


# Runs that another harness has logged lie where `generate` would write them. The priority of both rules starts them
# before expensive jobs that are ready too, so that a log that does not fit is seen early.
rule import_run:
    input:
        unpack(stage["import_run"].inputs),
    output:
        **stage["import_run"].outputs,
    log:
        stage["import_run"].log,
    wildcard_constraints:
        arm=of("import_run", "arm"),
    priority: 100
    params:
        code=stage["import_run"].code,
        spec=stage["import_run"].params,
    script:
        "../workflow/scripts/import_run.py"


# Where the log's own values are taken, they lie where `score` would write its verdicts.
rule import_values:
    input:
        unpack(stage["import_values"].inputs),
    output:
        **stage["import_values"].outputs,
    log:
        stage["import_values"].log,
    wildcard_constraints:
        arm=of("import_values", "arm"),
    priority: 100
    params:
        code=stage["import_values"].code,
        spec=stage["import_values"].params,
    script:
        "../workflow/scripts/import_values.py"


# A judge is an arm like any other. Its questions are in the params, and the scores' code is not: when a score reads the
# answers in a new way, no question is asked again.
rule judge:
    input:
        unpack(stage["judge"].inputs),
    output:
        **stage["judge"].outputs,
    log:
        stage["judge"].log,
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
    wildcard_constraints:
        arm=of("score", "arm"),
    params:
        code=stage["score"].code,
        spec=stage["score"].params,
    script:
        "../workflow/scripts/score.py"
