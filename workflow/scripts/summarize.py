import json
from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    from imprint import aggregate, tables

    spec = json.loads(snakemake.params.spec)
    scores = tables.concat([Path(path) for path in snakemake.input.scores], "scores")
    tables.write(Path(snakemake.output.summary), "summary", aggregate.summarize(scores, spec["arms"], spec["metrics"]))
    comparisons = aggregate.compare(scores, spec["arms"], spec["controls"], spec["metrics"])
    tables.write(Path(snakemake.output.comparisons), "comparisons", comparisons)
