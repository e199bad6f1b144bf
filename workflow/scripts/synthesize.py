from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.synthesis import _job as synthesis

    synthesis.run(
        spec=synthesis.Spec.model_validate_json(snakemake.params.spec),
        datasets=[Path(path) for path in snakemake.input.datasets],
        runs=[Path(path) for path in snakemake.input.runs],
        manifests=[Path(path) for path in snakemake.input.manifests],
        code=snakemake.params.code,
        scores=snakemake.resources.scores.split(),
        out=Path(snakemake.output.datasets),
        attempts=Path(snakemake.output.synthesis),
        device=frame.device(snakemake.resources.device, snakemake.resources.get("gpu", 0)),
        gpus=snakemake.resources.get("gpu", 0),
    )
