from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.report import costs

    costs.run(
        spec=costs.Spec.model_validate_json(snakemake.params.spec),
        manifests=[Path(path) for path in snakemake.input.manifests],
        synthesis=[Path(path) for path in snakemake.input.synthesis],
        out={name: Path(path) for name, path in snakemake.output.items()},
    )
