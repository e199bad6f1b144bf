"""The summarize job: from the scores of all runs, and the clusters of their examples, to the tables `summary`,
`comparisons`, `pairs` and `answers`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imprint.runtime import parquet
from imprint.runtime.plugins import Strict

if TYPE_CHECKING:
    import polars as pl

    from imprint.statistics import aggregate


class Check(Strict):
    """Whether a treatment was delivered: is the arm better than the control on this metric?"""

    arm: str
    control: str
    eval: str
    metric: str


class CurveCheck(Strict):
    """Whether a treatment was delivered: does this training curve of the arm rise, or, where `above` or `below` is
    given, is its mean there?"""

    arm: str
    curve: str
    above: float | None
    below: float | None


class Plan(Strict):
    """What the experiment will have at its last look. `version`: a hash of what the config says of its questions, and
    of their arms and evals; `seeds`: of a fitted arm; `looks`: the file of its history."""

    version: str
    seeds: int
    looks: str


class AskedQuestion(Strict):
    """A question of the config about one eval (`config.questions.Question`), with its names filled in."""

    name: str
    asks: str
    arm: str
    control: str
    eval: str
    metric: str
    kind: Literal["gain", "retention", "equivalence"]
    margin: float
    over: str | None
    check: Check | CurveCheck | None


class Spec(Strict):
    """What the statistics depend on beside the scores. `arms`: arm -> its evals; `fitted`: the arms whose answers
    differ from training run to training run, which each seed repeats; `single`: the arms whose answers rest on a single
    training run, such as given weights; `runs`: (arm, seed, eval); `metrics`: eval -> metric -> (is primary,
    direction); `controls`: arm -> the arms that it is compared with; `datasets`: eval -> its dataset, for every eval
    that is run."""

    arms: dict[str, list[str]]
    fitted: list[str]
    single: list[str]
    runs: list[tuple[str, int, str]]
    metrics: dict[str, dict[str, tuple[bool, int]]]
    controls: dict[str, list[str]]
    datasets: dict[str, str]
    questions: list[AskedQuestion]
    plan: Plan


def run(*, spec: Spec, scores: list[Path], datasets: list[Path], manifests: list[Path], out: dict[str, Path]) -> None:
    """Write the tables, and add the look to the history. `datasets` are the files of all evals' datasets, `manifests`
    those of the fits whose curves are checked, in any order. Raises ImprintError like `aggregate.Table`."""
    import polars as pl

    from imprint.statistics import aggregate

    evals = pl.DataFrame(list(spec.datasets.items()), schema={"eval": pl.String, "dataset": pl.String}, orient="row")
    rows = parquet.concat(datasets, "datasets").select(["dataset", "example_id", "cluster", "strata"])
    examples = evals.join(pl.DataFrame(pl.from_arrow(rows)), on="dataset").drop("dataset")
    table = aggregate.Table(
        parquet.concat(scores, "scores", aggregate.COLUMNS, coded=True),
        examples,
        spec.arms,
        spec.metrics,
        spec.fitted,
        spec.single,
    )
    files = [path.with_name("curves.parquet") for path in manifests]
    curves = pl.DataFrame(pl.from_arrow(parquet.concat([path for path in files if path.is_file()], "curves")))
    parquet.write(out["comparisons"], "comparisons", aggregate.compare(table, spec.controls))
    parquet.write(out["pairs"], "pairs", aggregate.pairs(table))
    parquet.write(out["summary"], "summary", aggregate.summarize(table))
    parquet.write(out["answers"], "answers", _answers(spec, table, curves))


def _answers(spec: Spec, table: aggregate.Table, curves: pl.DataFrame) -> list[dict[str, Any]]:
    """The answers at this look, which is added to the history."""
    from imprint.statistics import answering, history

    if not spec.questions:
        return []
    now = answering.amounts(table, spec.questions)
    # With one seed the answers are about these weights, of which there will be no more; several are another family.
    scope, seeds = ("weights", 1) if now.seeds == 1 else ("method", spec.plan.seeds)
    version, looks = f"{spec.plan.version} {scope}", Path(spec.plan.looks)
    look = history.take(history.read(looks), version, now, answering.planned(table, spec.questions, seeds))
    rows = answering.answer(table, spec.questions, curves, look)
    history.add(looks, version, history.Seen(amounts=now, spent=look.spent))
    return rows
