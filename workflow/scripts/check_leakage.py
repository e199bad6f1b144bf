from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.tables import contamination

    contamination.run(
        spec=contamination.Spec.model_validate_json(snakemake.params.spec),
        contamination=Path(snakemake.output.contamination),
        contamination_rows=Path(snakemake.output.contamination_rows),
    )
