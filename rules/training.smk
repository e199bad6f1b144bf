# One rule a method in use, so that a profile can address it: `set-resources: {train_sft: {gpu: 1}}`.
for method in experiment.methods:

    rule:
        name:
            f"train_{method}"
        input:
            manifests=lambda w: experiment.fit_inputs(w.arm, int(w.seed))["manifests"],
            datasets=lambda w: experiment.fit_inputs(w.arm, int(w.seed))["datasets"],
            arms=lambda w: experiment.fit_inputs(w.arm, int(w.seed))["arms"],
            runs=lambda w: experiment.fit_inputs(w.arm, int(w.seed))["runs"],
        output:
            f"{RESULTS}/arms/{{arm}}/seed{{seed}}/manifest.json",
        benchmark:
            f"{RESULTS}/benchmarks/train/{{arm}}.seed{{seed}}.tsv"
        wildcard_constraints:
            arm=one_of(experiment.fitted(method)),
        priority: 10
        resources:
            device=experiment.config.engine.device,
        params:
            code=lambda w: experiment.fit_code(w.arm),
            spec=lambda w: experiment.fit_params(w.arm, int(w.seed)),
        script:
            "../workflow/scripts/train.py"
