from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.statistics import summarize

    summarize.run(
        spec=summarize.Spec.model_validate_json(snakemake.params.spec),
        scores=[Path(path) for path in snakemake.input.scores],
        datasets=[Path(path) for path in snakemake.input.datasets],
        answers=Path(snakemake.output.answers),
        comparisons=Path(snakemake.output.comparisons),
        pairs=Path(snakemake.output.pairs),
        summary=Path(snakemake.output.summary),
    )
