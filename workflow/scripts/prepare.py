from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.datasets import _job as preparing

    preparing.run(
        spec=preparing.Spec.model_validate_json(snakemake.params.spec),
        files=[Path(path) for path in snakemake.input.files],
        scores=snakemake.resources.scores.split(),
        out=Path(snakemake.output.datasets),
    )
