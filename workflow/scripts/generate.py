from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.policies import generation

    generation.run(
        spec=generation.Spec.model_validate_json(snakemake.params.spec),
        manifests=[Path(path) for path in snakemake.input.manifests],
        dataset=Path(snakemake.input.dataset),
        datasets=[Path(path) for path in snakemake.input.datasets],
        runs=[Path(path) for path in snakemake.input.runs],
        code=snakemake.params.code,
        out=Path(snakemake.output.generations),
        prompts=Path(snakemake.output.prompts),
        threads=snakemake.threads,
        device=frame.device(snakemake.resources.device, snakemake.resources.get("gpu", 0)),
        gpus=snakemake.resources.get("gpu", 0),
    )
