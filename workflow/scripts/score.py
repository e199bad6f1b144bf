import json
from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    from imprint import scoring

    scoring.run(
        generations=Path(snakemake.input.generations),
        dataset=Path(snakemake.input.dataset),
        spec=json.loads(snakemake.params.spec),
        out=Path(snakemake.output[0]),
        judgements=next(map(Path, snakemake.input.judgements), None),
    )
