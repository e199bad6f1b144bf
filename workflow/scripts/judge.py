from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.policies import judging

    judging.run(
        spec=judging.Spec.model_validate_json(snakemake.params.spec),
        manifests=[Path(path) for path in snakemake.input.manifests],
        dataset=Path(snakemake.input.dataset),
        generations=Path(snakemake.input.generations),
        others=[Path(path) for path in snakemake.input.others],
        code=snakemake.params.code,
        out=Path(snakemake.output.judgements),
        device=frame.device(snakemake.resources.device, snakemake.resources.get("gpu", 0)),
        gpus=snakemake.resources.get("gpu", 0),
    )
