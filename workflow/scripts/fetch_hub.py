from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake, network=True):
    from imprint.config import hub

    hub.run(
        spec=hub.Spec.model_validate_json(snakemake.params.spec),
        mirror=Path(snakemake.resources.mirror) if snakemake.resources.mirror else None,
        out=Path(snakemake.output.manifest),
    )
