"""The summarize job: from the scores of all runs, and the clusters of their examples, to the tables `summary` and
`comparisons`."""

from __future__ import annotations

from pathlib import Path

from imprint.runtime import parquet
from imprint.runtime.plugins import Strict


class Spec(Strict):
    """What the statistics depend on beside the scores. `arms`: arm -> its evals; `runs`: (arm, seed, eval); `metrics`:
    eval -> metric -> (is primary, direction); `controls`: arm -> the arms that it is compared with; `datasets`: eval
    -> its dataset, for every eval that is run."""

    arms: dict[str, list[str]]
    runs: list[tuple[str, int, str]]
    metrics: dict[str, dict[str, tuple[bool, int]]]
    controls: dict[str, list[str]]
    datasets: dict[str, str]


def run(spec: Spec, scores: list[Path], datasets: list[Path], summary: Path, comparisons: Path) -> None:
    """Write the tables `summary` and `comparisons`. `datasets` are the files of all evals' datasets, in any order.
    Raises like `aggregate.summarize`."""
    import polars as pl

    from imprint.statistics import aggregate

    table = parquet.concat(scores, "scores")
    evals = pl.DataFrame(list(spec.datasets.items()), schema={"eval": pl.String, "dataset": pl.String}, orient="row")
    rows = parquet.concat(datasets, "datasets").select(["dataset", "example_id", "cluster"])
    examples = evals.join(pl.DataFrame(pl.from_arrow(rows)), on="dataset").drop("dataset")
    parquet.write(summary, "summary", aggregate.summarize(table, examples, spec.arms, spec.metrics))
    differences = aggregate.compare(table, examples, spec.arms, spec.controls, spec.metrics)
    parquet.write(comparisons, "comparisons", differences)
