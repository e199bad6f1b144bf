# Datasets that are made from others: `synthesize` asks a teacher and so runs a model, `rearrange` does not.
rule synthesize:
    input:
        unpack(stage["synthesize"].inputs),
    output:
        **stage["synthesize"].outputs,
    log:
        stage["synthesize"].log,
    wildcard_constraints:
        dataset=of("synthesize", "dataset"),
    resources:
        device=experiment.config.engine.device,
        scores=stage["synthesize"].scores,
    params:
        code=stage["synthesize"].code,
        spec=stage["synthesize"].params,
    script:
        "../workflow/scripts/synthesize.py"


rule rearrange:
    input:
        unpack(stage["rearrange"].inputs),
    output:
        **stage["rearrange"].outputs,
    log:
        stage["rearrange"].log,
    wildcard_constraints:
        dataset=of("rearrange", "dataset"),
    resources:
        scores=stage["rearrange"].scores,
    params:
        code=stage["rearrange"].code,
        spec=stage["rearrange"].params,
    script:
        "../workflow/scripts/rearrange.py"
