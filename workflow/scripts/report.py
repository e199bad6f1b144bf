from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.report import facts, write
    from imprint.runtime.schemas import SCHEMAS

    write.run(
        spec=facts.Spec.model_validate_json(snakemake.params.spec),
        template=Path(snakemake.input.template),
        tables={name: [Path(path) for path in paths] for name, paths in snakemake.input.items() if name in SCHEMAS},
        charts=dict(zip(map(Path, snakemake.input.charts), map(Path, snakemake.input.captions), strict=True)),
        out=Path(snakemake.output.report),
    )
