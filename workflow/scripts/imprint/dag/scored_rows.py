"""Which scores judge the rows of which datasets, and rows that a score cannot judge, as far as they can be read before
the first job. The jobs that make datasets check all of their rows again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from imprint.config import graph
from imprint.config.schema import Config
from imprint.dag import leakage
from imprint.runtime import needs
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs


class Judged(NamedTuple):
    """A score, the dataset whose rows it judges, and the place in the config that says so."""

    where: str
    score: str
    dataset: str


def judged(config: Config) -> Iterator[Judged]:
    """Every score of an eval, and every score that a fit or a synthesiser runs, such as a reward."""
    for name, ev in config.evals.items():
        for ref in ev.scores:
            yield Judged(f"evals.{name}.score", ref.name, ev.dataset)
    for name in config.arms:
        yield from _run(f"arms.{name}.fit", graph.of_method(config, name))
    for name in config.datasets:
        yield from _run(f"datasets.{name}", graph.of_dataset(config, name))


def _run(where: str, inputs: Inputs) -> Iterator[Judged]:
    for kind, score in inputs.plugins:
        if kind == "scores":
            yield from (Judged(where, score, dataset) for dataset in inputs.datasets)


def scores(config: Config) -> list[str]:
    """`DATASET:SCORE` of each score that judges the rows of a dataset, sorted."""
    return sorted({f"{each.dataset}:{each.score}" for each in judged(config)})


def check(config: Config, rows: leakage.Cache) -> None:
    """Raise one `ImprintError` that names every score with a row that it cannot judge. `rows`: the rows that were read;
    those that can be read and were not are added."""
    problems = []
    for where, score, dataset in judged(config):
        if needs.reads(score) == "nothing":
            continue
        known = leakage.readable(config, dataset, rows) if leakage.made_now(config, dataset) else None
        if message := needs.refusal(score, dataset, known or []):
            problems.append(f"{where}: {message}")
    if problems:
        raise ImprintError("\n".join(problems))
