"""How many examples and seeds a question needs.

The variance of a difference of two arms on n clusters of examples and S seeds is taken apart:

    V = of_examples / n + of_answers / (n S) + of_runs / S.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from scipy.stats import t as student

from imprint.statistics.contrasts import Contrast
from imprint.statistics.looks import NORMAL

POWER = 0.8
MOST = 1_000_000
"""Where more examples or seeds would be needed, none are named."""

Kind = Literal["gain", "retention", "equivalence"]


class Variances(NamedTuple):
    """The variances of a difference, in squared units of the metric: between clusters of examples; of one training
    run's answer to one cluster; between training runs (None where one seed of a fitted arm does not show it).
    `lending`: the degrees of freedom of `of_runs` that a further seed brings; 0 where no arm is fitted."""

    of_examples: float
    of_answers: float
    of_runs: float | None
    lending: int


def variances(compared: Contrast, z: float) -> Variances | None:
    """The variances that a contrast shows; None where it shows none. `z`: the critical value; a score interval has a
    width even where no pair differs."""
    if not compared.known:
        return None
    seeds = max(1, compared.seeds)
    v_examples = (compared.half_width(z) / z) ** 2 if compared.score else compared.v_examples
    of_examples = max(0.0, v_examples - compared.v_shared) * compared.clusters
    of_answers = compared.v_shared * compared.clusters * seeds
    lending = compared.arms - 1 if len(compared.loads) > 1 else compared.arms
    return Variances(of_examples, of_answers, None if compared.v_seeds is None else compared.v_seeds * seeds, lending)


def reach(apart: Variances, z: float, clusters: int, seeds: int, kind: Kind = "gain") -> float:
    """The smallest difference, or for retention and equivalence the smallest margin, that so many clusters and seeds
    show with 80% power. `z`: the critical value of the family, as a standard normal value. Where the variance between
    training runs is not known, it is left out."""
    runs = max(1, seeds)
    v_examples = apart.of_examples / clusters + apart.of_answers / (clusters * runs)
    v_runs = (apart.of_runs or 0.0) / runs
    variance = v_examples + v_runs
    spread = v_examples**2 / max(1, clusters - 1) + v_runs**2 / max(1, apart.lending * (runs - 1))
    df = max(1.0, variance**2 / spread) if spread else math.inf
    return float(student.isf(NORMAL.cdf(-z), df) + student.ppf(power(kind), df)) * math.sqrt(variance)


def power(kind: Kind) -> float:
    """The chance with which an end of the interval must fall short of what it must exclude: for equivalence, both ends
    must."""
    return (1 + POWER) / 2 if kind == "equivalence" else POWER


def needs(
    apart: Variances, z: float, clusters: int, seeds: int, target: float, kind: Kind = "gain"
) -> tuple[int | None, int | None]:
    """(clusters, seeds) of which either is enough to show `target`, the other staying as it is. None where it is enough
    already, and where no number up to MOST is."""
    if target <= 0:
        return None, None
    return (
        _first(lambda more: reach(apart, z, more, seeds, kind) < target, clusters),
        _first(lambda more: reach(apart, z, clusters, more, kind) < target, seeds) if apart.lending else None,
    )


def _first(enough: Callable[[int], bool], start: int) -> int | None:
    """The smallest number above `start` that is enough, by doubling and halving; None if `start` is, or none up to
    MOST."""
    if enough(start):
        return None
    low, high = start, 2 * start
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
