import json
from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    from imprint import generation

    out = Path(snakemake.output.generations)
    generation.run(
        manifests=[Path(path) for path in snakemake.input.manifests],
        dataset=Path(snakemake.input.dataset),
        spec=json.loads(snakemake.params.spec),
        out=out,
        prompts=Path(snakemake.output.prompts),
        work_folder=out.with_suffix(".work"),
        code=[Path(path) for path in json.loads(snakemake.params.code)],
        threads=snakemake.threads,
        device=runtime.device(snakemake.resources.device, snakemake.resources.get("gpu", 0)),
    )
