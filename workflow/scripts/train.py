import json
from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    from imprint import training

    training.run(
        spec=json.loads(snakemake.params.spec),
        manifests=[Path(path) for path in snakemake.input.manifests],
        datasets=[Path(path) for path in snakemake.input.datasets],
        runs=[Path(path) for path in snakemake.input.runs],
        code=[Path(path) for path in json.loads(snakemake.params.code)],
        out=Path(snakemake.output[0]),
        threads=snakemake.threads,
        device=runtime.device(snakemake.resources.device, snakemake.resources.get("gpu", 0)),
    )
