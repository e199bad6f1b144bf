from pathlib import Path

from imprint.runtime import frame

with frame.job(snakemake):
    from imprint.scoring import score_run

    score_run.run(
        spec=score_run.Spec.model_validate_json(snakemake.params.spec),
        generations=Path(snakemake.input.generations),
        dataset=Path(snakemake.input.dataset),
        judgements=next(map(Path, snakemake.input.judgements), None),
        out=Path(snakemake.output.scores),
        scored_texts=Path(snakemake.output.scored_texts),
    )
