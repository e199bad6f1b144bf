"""The summarize job: from the scores of all runs to the tables `summary` and `comparisons`."""

from __future__ import annotations

from pathlib import Path

from imprint.runtime import parquet
from imprint.runtime.plugins import Strict


class Spec(Strict):
    """What the statistics depend on beside the scores. `arms`: arm -> its evals; `runs`: (arm, seed, eval); `metrics`:
    eval -> metric -> (is primary, direction); `controls`: arm -> the arms that it is compared with."""

    arms: dict[str, list[str]]
    runs: list[tuple[str, int, str]]
    metrics: dict[str, dict[str, tuple[bool, int]]]
    controls: dict[str, list[str]]


def run(spec: Spec, scores: list[Path], summary: Path, comparisons: Path) -> None:
    """Write the tables `summary` and `comparisons`. Raises like `aggregate.summarize`."""
    from imprint.statistics import aggregate

    table = parquet.concat(scores, "scores")
    parquet.write(summary, "summary", aggregate.summarize(table, spec.arms, spec.metrics))
    parquet.write(comparisons, "comparisons", aggregate.compare(table, spec.arms, spec.controls, spec.metrics))
