"""The summarize job: from the scores of all runs, and the clusters of their examples, to the tables `summary`,
`comparisons`, `pairs` and `answers`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from imprint.runtime import parquet
from imprint.runtime.plugins import Strict


class Check(Strict):
    """A comparison that shows whether a treatment was delivered: the arm must be better than the control."""

    arm: str
    control: str
    eval: str
    metric: str


class AskedQuestion(Strict):
    """A question of the config about one eval (`config.schema.Question`), with its names filled in."""

    name: str
    asks: str
    arm: str
    control: str
    eval: str
    metric: str
    kind: Literal["gain", "retention", "equivalence"]
    margin: float
    over: str | None
    check: Check | None


class Spec(Strict):
    """What the statistics depend on beside the scores. `arms`: arm -> its evals; `fitted`: the arms whose answers
    differ from training run to training run; `runs`: (arm, seed, eval); `metrics`: eval -> metric -> (is primary,
    direction); `controls`: arm -> the arms that it is compared with; `datasets`: eval -> its dataset, for every eval
    that is run."""

    arms: dict[str, list[str]]
    fitted: list[str]
    runs: list[tuple[str, int, str]]
    metrics: dict[str, dict[str, tuple[bool, int]]]
    controls: dict[str, list[str]]
    datasets: dict[str, str]
    questions: list[AskedQuestion]


def run(
    spec: Spec,
    scores: list[Path],
    datasets: list[Path],
    answers: Path,
    comparisons: Path,
    pairs: Path,
    summary: Path,
) -> None:
    """Write the tables. `datasets` are the files of all evals' datasets, in any order. Raises ImprintError like
    `aggregate.Table`."""
    import polars as pl

    from imprint.statistics import aggregate

    evals = pl.DataFrame(list(spec.datasets.items()), schema={"eval": pl.String, "dataset": pl.String}, orient="row")
    rows = parquet.concat(datasets, "datasets").select(["dataset", "example_id", "cluster", "strata"])
    examples = evals.join(pl.DataFrame(pl.from_arrow(rows)), on="dataset").drop("dataset")
    table = aggregate.Table(parquet.concat(scores, "scores"), examples, spec.arms, spec.metrics, spec.fitted)
    parquet.write(answers, "answers", aggregate.answer(table, spec.questions))
    parquet.write(comparisons, "comparisons", aggregate.compare(table, spec.controls))
    parquet.write(pairs, "pairs", aggregate.pairs(table))
    parquet.write(summary, "summary", aggregate.summarize(table))
