import json
from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    from imprint import leakage

    leakage.run(json.loads(snakemake.params.spec), Path(snakemake.output[0]))
