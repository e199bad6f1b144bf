from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake, network=True):
    from imprint.models import sources

    sources.run(sources.Spec.model_validate_json(snakemake.params.spec), Path(snakemake.output.manifest))
