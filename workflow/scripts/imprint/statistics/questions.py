"""Questions about arms and their answers: verdicts that hold for all questions of an experiment together.

A question compares an arm with a control on one eval. All questions of an experiment are one family: the chance that
any of its answers is wrong is at most 5%, however often the data are looked at (`looks`). The statistics are normal
with the correlations of the differences, which follow from shared clusters and shared training runs; each is then
judged by its own t distribution. Differences of two evals count as independent, which never makes the critical value
too small (Sidak 1967, J. Am. Stat. Assoc. 62).

One interval gives the answer:

- gain: better or worse if and only if the interval excludes 0, else undecided;
- retention: kept if the interval lies above -margin, lost if it lies below, else undecided;
- equivalence: equivalent if the interval lies within +-margin, better or worse if it excludes 0 and is not within,
  else undecided.

With one training run of a fitted arm, the answer is about these weights alone: an interval over examples cannot say
what another training run would give. The words are then "higher" and "lower". With one seed, `seed_sd` is the largest
standard deviation between training runs under which the sign would survive. Given weights are one run at any number of
seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.stats import t as student

from imprint.statistics.contrasts import Contrast, Floats, Scores, contrast
from imprint.statistics.looks import NORMAL, Boundary, Look, boundary
from imprint.statistics.planning import Kind, Variances, needs, power, variances

Scope = Literal["method", "weights"]


@dataclass(frozen=True)
class Question:
    """Does the arm gain over its control on the eval; does it keep what the control has (within `margin`); are both
    equivalent (within `margin`)? `direction` is 1 if a higher value is better, -1 if a lower one is. `margin` is in the
    units of the metric."""

    name: str
    arm: str
    control: str
    eval: str
    kind: Kind = "gain"
    margin: float = 0.0
    direction: int = 1


@dataclass(frozen=True)
class Answer:
    """The answer to a question. What the data cannot give is None.

    `low` and `high`: the simultaneous interval; None also where it is too early to judge. `p`: the share of experiments
    without any effect in which some statistic of the family is as far out as this one, or was at an earlier look.
    `scope` is "method", or "weights" where an arm shows a single training run. `smallest`: the difference that would
    have been found with 80% power, or for retention and equivalence the margin that would have been shown with 80%
    power if there were no difference. `examples_needed` and `seeds_needed`: how many clusters of examples, or how many
    seeds, would settle the question with 80% power if the difference stayed as it is; None where it is settled, and
    where no number up to planning.MOST would. `variances` are those that the data show, for planning.
    """

    question: Question
    verdict: str
    scope: Scope
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    clusters: int = 0
    seeds: int = 0
    smallest: float | None = None
    seed_sd: float | None = None
    examples_needed: int | None = None
    seeds_needed: int | None = None
    variances: Variances | None = None


def answers(
    questions: Sequence[Question], scores: Mapping[str, Scores], share: float = 1.0, earlier: Sequence[Look] = ()
) -> list[Answer]:
    """The answers to all questions of an experiment, in their order. `scores`: eval -> its scores. `share`: how much of
    the planned data they are. `earlier`: the looks at less of these data."""
    contrasts = [
        contrast(scores[q.eval], q.arm, q.control)
        if q.eval in scores and {q.arm, q.control} <= set(scores[q.eval].values)
        else None
        for q in questions
    ]
    known = [i for i, c in enumerate(contrasts) if c is not None and c.known]
    family = [(questions[i].eval, c) for i in known if (c := contrasts[i]) is not None]
    limit = boundary(correlations(family) if family else np.ones((1, 1)), share, earlier)
    return [_answer(q, c, limit) for q, c in zip(questions, contrasts, strict=True)]


def outcome(verdict: str, direction: int) -> Literal["good", "bad", "open"]:
    """Whether a verdict is welcome. "higher" and "lower" say where the value lies, so it depends on the direction."""
    if verdict in ("better", "kept", "equivalent", "higher" if direction > 0 else "lower"):
        return "good"
    return "bad" if verdict in ("worse", "lost", "higher", "lower") else "open"


def side(low: float | None, high: float | None, direction: int) -> Literal["good", "bad", "open"]:
    """On which side of 0 the interval of a difference lies: the better one, the worse one, or neither. Without an
    interval it is neither."""
    if low is None or high is None or low <= 0 <= high:
        return "open"
    return "good" if (low > 0) == (direction > 0) else "bad"


def correlations(family: Sequence[tuple[str, Contrast]]) -> Floats:
    """The correlations of differences, shape (m, m), each given with its eval. The differences of one eval share its
    clusters, and those that share a fitted arm share its training runs."""
    size = len(family)
    covariance = np.zeros((size, size))
    for i, (eval_name, one) in enumerate(family):
        for j, (other_eval, other) in enumerate(family):
            if eval_name != other_eval:
                continue
            scale = math.sqrt(one.clusters / (one.clusters - 1) * other.clusters / (other.clusters - 1))
            covariance[i, j] = float(one.influence @ other.influence) * scale
            common = sum(one.loads[arm] * other.loads.get(arm, 0) for arm in one.loads)
            if common and one.v_seeds and other.v_seeds:
                lengths = math.sqrt(len(one.loads) * len(other.loads))
                covariance[i, j] += common / lengths * math.sqrt(one.v_seeds * other.v_seeds)
    spread = np.sqrt(np.diag(covariance))
    spread[spread == 0] = 1.0
    result = covariance / np.outer(spread, spread)
    np.fill_diagonal(result, 1.0)
    return np.asarray(result, dtype=np.float64)


def _answer(question: Question, compared: Contrast | None, limit: Boundary) -> Answer:
    if compared is None:
        return Answer(question, "no data", "method")
    scope: Scope = "weights" if compared.one_run else "method"
    known = Answer(question, "undecided", scope, compared.difference, clusters=compared.clusters, seeds=compared.seeds)
    if not compared.known:
        return known
    z = limit.z
    known = replace(known, p=limit.p(_distance(question, compared)))
    if math.isinf(z):
        return known
    low, high = compared.interval(z)
    verdict = _verdict(question, low, high, scope)
    components = variances(compared, z)
    examples, seeds = (
        needs(components, z, compared.clusters, compared.seeds, _target(question, compared), question.kind)
        if components and verdict == "undecided" and compared.v_seeds is not None
        else (None, None)
    )
    return replace(
        known,
        verdict=verdict,
        low=low,
        high=high,
        smallest=compared.half_width(z) * (1 + _for_power(question, compared) / compared.critical(z)),
        seed_sd=_survives(compared, z) if compared.v_seeds is None and verdict != "undecided" else None,
        examples_needed=examples,
        seeds_needed=seeds,
        variances=components,
    )


def _verdict(question: Question, low: float, high: float, scope: str) -> str:
    if question.direction < 0:
        low, high = -high, -low
    up, down = ("better", "worse") if scope == "method" else ("higher", "lower")
    if scope == "weights" and question.direction < 0:
        up, down = down, up  # the words then say where the value lies
    margin = question.margin
    if question.kind == "retention":
        return "kept" if low > -margin else "lost" if high < -margin else "undecided"
    if question.kind == "equivalence" and -margin < low and high < margin:
        return "equivalent"
    return up if low > 0 else down if high < 0 else "undecided"


def _distance(question: Question, compared: Contrast) -> float:
    """How far the difference is from what the question must exclude, as a standard normal value."""
    if question.kind == "retention":
        return abs(compared.statistic(-question.margin * question.direction))
    if question.kind == "equivalence":
        inside = min(compared.statistic(-question.margin), -compared.statistic(question.margin))
        return max(inside, abs(compared.statistic(0.0)), 0.0)
    return abs(compared.statistic(0.0))


def _for_power(question: Question, compared: Contrast) -> float:
    chance = power(question.kind)
    return NORMAL.inv_cdf(chance) if compared.score else float(student.ppf(chance, compared.df))


def _target(question: Question, compared: Contrast) -> float:
    """How far the difference is from what the interval must exclude, in units of the metric."""
    toward = compared.difference * question.direction
    return {
        "gain": abs(toward),
        "retention": toward + question.margin,
        "equivalence": question.margin - abs(toward),
    }[question.kind]


def _survives(compared: Contrast, z: float) -> float:
    """The largest standard deviation between training runs under which the interval would still exclude 0. Each fitted
    arm of the difference has it."""
    room = (compared.difference / compared.critical(z)) ** 2 - compared.v_examples
    return math.sqrt(max(0.0, room) / max(1, len(compared.loads)))
