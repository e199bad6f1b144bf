import json
from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    from imprint import costs

    costs.run(
        spec=json.loads(snakemake.params.spec),
        manifests=[Path(path) for path in snakemake.input.manifests],
        attempts=[Path(path) for path in snakemake.input.attempts],
        out={name: Path(path) for name, path in snakemake.output.items()},
    )
