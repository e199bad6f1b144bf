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
from imprint.statistics.looks import LEVEL, NORMAL

POWER = 0.8
MOST = 1_000_000
"""The largest number of examples or seeds that is named as enough."""

Kind = Literal["gain", "retention", "equivalence"]


class Variances(NamedTuple):
    """The variances of a difference, in squared units of the metric.

    `of_examples`: between clusters of examples. `of_answers`: of one training run's answer to one cluster. `of_runs`:
    between training runs; None where a fitted arm has one seed, which does not show it. `lending`: the degrees of
    freedom of `of_runs` that a further seed brings; 0 where no arm is fitted.
    """

    of_examples: float
    of_answers: float
    of_runs: float | None
    lending: int


def variances(compared: Contrast, z: float) -> Variances | None:
    """The variances that a contrast shows; None where it shows none. `z`: the critical value. For a score interval,
    which has a width even where no pair differs, the variance between examples comes from this width."""
    if not compared.known:
        return None
    seeds = max(1, compared.seeds)
    v_examples = (compared.half_width(z) / z) ** 2 if compared.score else compared.v_examples
    of_examples = max(0.0, v_examples - compared.v_shared) * compared.clusters
    of_answers = compared.v_shared * compared.clusters * seeds
    lending = compared.arms - 1 if len(compared.loads) > 1 else compared.arms
    return Variances(of_examples, of_answers, None if compared.v_seeds is None else compared.v_seeds * seeds, lending)


def critical(questions: int) -> float:
    """The critical value of a family of independent questions (Sidak 1967), as a standard normal value."""
    return NORMAL.inv_cdf((1 + LEVEL ** (1 / questions)) / 2)


def reach(components: Variances, z: float, clusters: int, seeds: int, kind: Kind = "gain") -> float:
    """The smallest difference, or for retention and equivalence the smallest margin, that this many clusters and seeds
    show with 80% power. `z`: the critical value of the family, as a standard normal value. Where the variance between
    training runs is not known, it is left out."""
    runs = max(1, seeds)
    v_answers = components.of_answers / (clusters * runs)
    v_examples = components.of_examples / clusters + v_answers
    v_runs = (components.of_runs or 0.0) / runs
    variance = v_examples + v_runs
    # The means of seeds, which give the variance between runs, also vary by the answers of one run.
    spread = v_examples**2 / max(1, clusters - 1)
    if components.lending and runs > 1:
        spread += (v_runs + v_answers) ** 2 / (components.lending * (runs - 1))
    df = max(1.0, variance**2 / spread) if spread else math.inf
    return float(student.isf(NORMAL.cdf(-z), df) + student.ppf(power(kind), df)) * math.sqrt(variance)


def power(kind: Kind) -> float:
    """The chance with which one end of the interval must fall on the right side of its bound. Equivalence has two
    bounds, so each end may fail half as often."""
    return (1 + POWER) / 2 if kind == "equivalence" else POWER


def needs(
    components: Variances, z: float, clusters: int, seeds: int, target: float, kind: Kind = "gain"
) -> tuple[int | None, int | None]:
    """(clusters, seeds): how many of each show `target` while the other stays as it is. None where the present number
    is enough, and where no number up to MOST is."""
    if target <= 0:
        return None, None
    return (
        _first(lambda more: reach(components, z, more, seeds, kind) < target, clusters),
        _first(lambda more: reach(components, z, clusters, more, kind) < target, seeds) if components.lending else None,
    )


def _first(enough: Callable[[int], bool], start: int) -> int | None:
    """The smallest number above `start` that is enough, found by doubling and halving. None if `start` is enough, or if
    no number up to MOST is."""
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
