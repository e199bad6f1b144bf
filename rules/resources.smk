# Only these rules and those of servers.smk use the network, so they run on the machine that runs the workflow.
localrules:
    fetch_model,
    reach_model,
    fetch_data,
    fetch_hub,


rule fetch_model:
    input:
        unpack(stage["fetch_model"].inputs),
    output:
        **stage["fetch_model"].outputs,
    log:
        stage["fetch_model"].log,
    wildcard_constraints:
        model=of("fetch_model", "model"),
    params:
        code=stage["fetch_model"].code,
        spec=stage["fetch_model"].params,
    script:
        "../workflow/scripts/fetch_model.py"


# A model on a server has no files. It is asked once, so that a wrong address or key is told before the long jobs.
rule reach_model:
    output:
        **stage["reach_model"].outputs,
    log:
        stage["reach_model"].log,
    wildcard_constraints:
        model=of("reach_model", "model"),
    priority: 100
    params:
        spec=stage["reach_model"].params,
    script:
        "../workflow/scripts/reach_model.py"


rule fetch_data:
    output:
        **stage["fetch_data"].outputs,
    log:
        stage["fetch_data"].log,
    resources:
        mirror=str(experiment.config.mirror_folder() or ""),
    params:
        spec=stage["fetch_data"].params,
    script:
        "../workflow/scripts/fetch_data.py"


rule fetch_hub:
    output:
        **stage["fetch_hub"].outputs,
    log:
        stage["fetch_hub"].log,
    resources:
        mirror=str(experiment.config.mirror_folder() or ""),
    params:
        spec=stage["fetch_hub"].params,
    script:
        "../workflow/scripts/fetch_hub.py"


rule prepare:
    input:
        unpack(stage["prepare"].inputs),
    output:
        **stage["prepare"].outputs,
    log:
        stage["prepare"].log,
    wildcard_constraints:
        dataset=of("prepare", "dataset"),
    resources:
        scores=stage["prepare"].scores,
    params:
        code=stage["prepare"].code,
        spec=stage["prepare"].params,
    script:
        "../workflow/scripts/prepare.py"
