import json
from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    from imprint import synthesis

    synthesis.run(
        spec=json.loads(snakemake.params.spec),
        datasets=[Path(path) for path in snakemake.input.datasets],
        manifests=[Path(path) for path in snakemake.input.manifests],
        code=[Path(path) for path in json.loads(snakemake.params.code)],
        out=Path(snakemake.output.dataset),
        attempts=Path(snakemake.output.attempts),
        device=lambda: runtime.device(snakemake.resources.device, snakemake.resources.get("gpu", 0)),
    )
