from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.tables import contamination

    contamination.run(
        contamination.Spec.model_validate_json(snakemake.params.spec), Path(snakemake.output.contamination)
    )
