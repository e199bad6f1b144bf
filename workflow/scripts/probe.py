from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.analyses import _probe as probing

    probing.run(
        spec=probing.Spec.model_validate_json(snakemake.params.spec),
        datasets=[Path(path) for path in snakemake.input.datasets],
        runs=[Path(path) for path in snakemake.input.runs],
        manifests=[Path(path) for path in snakemake.input.manifests],
        out=Path(snakemake.output.analyses),
        threads=snakemake.threads,
        device=frame.device(snakemake.resources.device, snakemake.resources.get("gpu", 0)),
    )
