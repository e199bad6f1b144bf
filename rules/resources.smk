# Fetching: the only rules that use the network, so they run where the workflow runs.
localrules:
    fetch_model,
    fetch_data,


rule fetch_model:
    input:
        files=lambda w: experiment.model_files(experiment.models[w.model]),
    output:
        "resources/models/{model}/manifest.json",
    params:
        code=experiment.code("fetch_model"),
        spec=lambda w: canonical(experiment.model_spec(experiment.models[w.model])),
    script:
        "../workflow/scripts/fetch_model.py"


rule fetch_data:
    output:
        "resources/data/{entry}/{file}",
    resources:
        mirror=str(experiment.config.mirror_folder() or ""),
    params:
        spec=lambda w: experiment.catalog_params(w.entry, w.file),
    script:
        "../workflow/scripts/fetch_data.py"


rule prepare:
    input:
        files=lambda w: experiment.dataset_files(w.dataset),
    output:
        f"{RESULTS}/datasets/{{dataset}}.parquet",
    wildcard_constraints:
        dataset=one_of(experiment.datasets(synthesised=False)),
    params:
        code=lambda w: experiment.dataset_code(w.dataset),
        spec=lambda w: experiment.dataset_params(w.dataset),
    script:
        "../workflow/scripts/prepare.py"
