rule synthesize:
    input:
        datasets=lambda w: experiment.synth_inputs(w.dataset)["datasets"],
        manifests=lambda w: experiment.synth_inputs(w.dataset)["manifests"],
        code=lambda w: experiment.dataset_code(w.dataset),
    output:
        dataset=f"{RESULTS}/datasets/{{dataset}}.parquet",
        attempts=f"{RESULTS}/datasets/{{dataset}}.attempts.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/synthesize/{{dataset}}.tsv"
    wildcard_constraints:
        dataset=one_of(experiment.datasets(synthesised=True)),
    resources:
        device=experiment.config.engine.device,
    params:
        spec=lambda w: experiment.dataset_params(w.dataset),
    script:
        "../workflow/scripts/synthesize.py"
