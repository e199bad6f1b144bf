import json
from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    from imprint import judging

    judging.run(
        manifests=[Path(path) for path in snakemake.input.manifests],
        dataset=Path(snakemake.input.dataset),
        generations=Path(snakemake.input.generations),
        spec=json.loads(snakemake.params.spec),
        out=Path(snakemake.output[0]),
        code=[Path(path) for path in json.loads(snakemake.params.code)],
        device=runtime.device(snakemake.resources.device, snakemake.resources.get("gpu", 0)),
    )
