from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.imports import _values

    _values.run(
        spec=_values.Spec.model_validate_json(snakemake.params.spec),
        log=Path(snakemake.input.log),
        dataset=Path(snakemake.input.dataset),
        out=Path(snakemake.output.scores),
    )
