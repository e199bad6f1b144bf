# Datasets made from other datasets: with a teacher's help (`synthesize`, which runs a model), or without (`rearrange`).
for rule_name, asks in (("synthesize", True), ("rearrange", False)):

    rule:
        name:
            rule_name
        input:
            datasets=lambda w: experiment.synth_inputs(w.dataset)["datasets"],
            manifests=lambda w: experiment.synth_inputs(w.dataset)["manifests"],
        output:
            dataset=f"{RESULTS}/datasets/{{dataset}}.parquet",
            attempts=f"{RESULTS}/datasets/{{dataset}}.attempts.parquet",
        benchmark:
            f"{RESULTS}/benchmarks/synthesize/{{dataset}}.tsv"
        wildcard_constraints:
            dataset=one_of(name for name in experiment.datasets(synthesised=True) if experiment.asks(name) == asks),
        resources:
            device=experiment.config.engine.device if asks else "cpu",
        params:
            code=lambda w: experiment.dataset_code(w.dataset),
            spec=lambda w: experiment.dataset_params(w.dataset),
        script:
            "../workflow/scripts/synthesize.py"
