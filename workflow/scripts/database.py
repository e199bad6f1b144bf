from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.tables import database

    files = {name: [Path(path) for path in paths] for name, paths in snakemake.input.items()}
    database.run(database.Spec.model_validate_json(snakemake.params.spec), Path(snakemake.output.database), files)
