from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    from imprint import database

    files = dict(snakemake.input.items())
    database.write_duckdb(
        Path(snakemake.output[0]),
        {
            name: [Path(path) for path in ([value] if isinstance(value, str) else value)]
            for name, value in files.items()
        },
    )
