from pathlib import Path

from imprint import runtime

with runtime.job(snakemake, network=True):
    import json

    from imprint import sources

    sources.fetch(json.loads(snakemake.params.spec), Path(snakemake.output[0]).parent)
