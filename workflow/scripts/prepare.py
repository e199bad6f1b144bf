import json
from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    from imprint import datasets

    files = [Path(file) for file in snakemake.input.files]
    datasets.prepare(json.loads(snakemake.params.spec), files, Path(snakemake.output[0]))
