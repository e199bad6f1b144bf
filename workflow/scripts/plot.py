from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.charts import _job as plotting

    plotting.run(
        spec=plotting.Spec.model_validate_json(snakemake.params.spec),
        caption=Path(snakemake.input.caption),
        svg_out=Path(snakemake.output.svg),
        caption_out=Path(snakemake.output.caption),
    )
