# Each method in use has its own rule, so that a profile can address it: `set-resources: {train_sft: {gpu: 1}}`.
for method, arms in stage["train"].methods().items():

    rule:
        name:
            f"train_{method}"
        input:
            unpack(stage["train"].inputs),
        output:
            **stage["train"].outputs,
        log:
            stage["train"].log,
        wildcard_constraints:
            arm=one_of(arms),
        priority: 10
        resources:
            device=experiment.config.engine.device,
            track=experiment.config.track or "",
        params:
            code=stage["train"].code,
            spec=stage["train"].params,
        script:
            "../workflow/scripts/train.py"
