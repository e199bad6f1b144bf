from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake, network=True):
    from imprint.engines import _job

    _job.run(_job.Spec.model_validate_json(snakemake.params.spec), Path(snakemake.output.manifest))
