from pathlib import Path

from imprint import runtime

with runtime.job(snakemake, network=True):
    from imprint import catalog

    mirror = Path(snakemake.resources.mirror) if snakemake.resources.mirror else None
    entry = catalog.load()[snakemake.wildcards.entry]
    catalog.fetch(entry.files[snakemake.wildcards.file], Path(snakemake.output[0]), mirror, entry.gated)
