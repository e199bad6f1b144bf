from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake, network=True):
    from imprint.config import catalog

    catalog.run(
        spec=catalog.Spec.model_validate_json(snakemake.params.spec),
        entry=snakemake.wildcards.entry,
        mirror=Path(snakemake.resources.mirror) if snakemake.resources.mirror else None,
        out=Path(snakemake.output.file),
    )
