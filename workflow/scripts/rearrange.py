from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.synthesis import _rearrange as rearranging

    rearranging.run(
        spec=rearranging.Spec.model_validate_json(snakemake.params.spec),
        datasets=[Path(path) for path in snakemake.input.datasets],
        runs=[Path(path) for path in snakemake.input.runs],
        scores=snakemake.resources.scores.split(),
        out=Path(snakemake.output.datasets),
        attempts=Path(snakemake.output.synthesis),
    )
