"""From scores to answers: a row for each question of the config, with its verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy.stats import ttest_ind

from imprint.statistics import questions
from imprint.statistics.aggregate import Row, Table, counts, rounded
from imprint.statistics.history import WHOLE, Amounts, Taken
from imprint.statistics.looks import ERROR, Z
from imprint.statistics.questions import Answer, Question
from imprint.statistics.summarize import AskedQuestion, Check, CurveCheck


def answer(table: Table, asked: Sequence[AskedQuestion], curves: pl.DataFrame, look: Taken = WHOLE) -> list[Row]:
    """Rows of table `answers`. A question whose manipulation check fails is not tested, and leaves the family.
    `curves`: the rows of table `curves` of the arms that checks name."""
    passed = [one.check is None or _delivered(table, curves, one.check) for one in asked]
    places = {place(one): table.arrays(one.eval, one.metric, one.over) for one in asked}
    family = [
        Question(
            name=one.name,
            arm=one.arm,
            control=one.control,
            eval=place(one),
            kind=one.kind,
            margin=one.margin,
            direction=table.metrics[one.eval][one.metric][1],
        )
        for one, tested in zip(asked, passed, strict=True)
        if tested
    ]
    stamp: Row = {
        "share": rounded(look.share),
        "looks_before": len(look.before),
        "may_decide": look.spent > look.spent_before,
        "other_versions": look.other_versions,
    }
    answers = iter(questions.answers(family, places, look.share, look.before))
    return [
        {
            **{"question": one.name, "asks": one.asks, "kind": one.kind, "arm": one.arm, "control": one.control},
            **{"eval": one.eval, "metric": one.metric, "margin": one.margin},
            "direction": table.metrics[one.eval][one.metric][1],
            "over": one.over,
            **counts(table, one.eval, one.metric, (one.arm, one.control), one.over),
            **(_answered(next(answers)) if tested else UNTESTED),
            **_at_worst(table, one),
            **stamp,
        }
        for one, tested in zip(asked, passed, strict=True)
    ]


def place(one: AskedQuestion) -> str:
    """The scores that a question is asked of, as a name."""
    return " ".join(filter(None, (one.eval, one.metric, one.over)))


def amounts(table: Table, asked: Sequence[AskedQuestion]) -> Amounts:
    """How much is looked at: the clusters that were asked, and the fewest seeds of a fitted arm."""
    arrays = {_named(one): table.arrays(one.eval, one.metric, one.over) for one in asked}
    seeds = [
        len(arrays[_named(one)].seeds[side])
        for one in asked
        for side in (one.arm, one.control)
        if side in arrays[_named(one)].fitted
    ]
    clusters = {name: len(np.unique(of_question.clusters)) for name, of_question in arrays.items()}
    return Amounts(clusters=clusters, seeds=min(seeds, default=0))


def planned(table: Table, asked: Sequence[AskedQuestion], seeds: int) -> Amounts:
    """How much there will be at the last look: all clusters of the evals' datasets, and so many seeds."""
    return Amounts(clusters={_named(one): table.clusters(one.eval, one.over) for one in asked}, seeds=seeds)


def _named(one: AskedQuestion) -> str:
    return f"{one.name}: {place(one)}"


def _answered(answer: Answer) -> Row:
    """The columns of an answer that statistics give."""
    apart = answer.variances
    return {
        "verdict": answer.verdict,
        "scope": answer.scope,
        "difference": rounded(answer.difference),
        "ci_low": rounded(answer.low),
        "ci_high": rounded(answer.high),
        "p": rounded(answer.p),
        "smallest": rounded(answer.smallest),
        "seed_sd": rounded(answer.seed_sd),
        "examples_needed": answer.examples_needed,
        "seeds_needed": answer.seeds_needed,
        "var_examples": rounded(apart.of_examples) if apart else None,
        "var_answers": rounded(apart.of_answers) if apart else None,
        "var_runs": rounded(apart.of_runs) if apart else None,
        "lending": apart.lending if apart else None,
    }


UNTESTED: Row = dict.fromkeys(
    (
        *("scope", "difference", "ci_low", "ci_high", "p", "smallest", "seed_sd", "examples_needed", "seeds_needed"),
        *("var_examples", "var_answers", "var_runs", "lending"),
    )
) | {"verdict": "not tested"}


def _at_worst(table: Table, one: AskedQuestion) -> Row:
    """The difference if every cluster that was left out had gone wholly to the control, or wholly to the arm. None
    where none was, and where a score has no end (it is not between 0 and 1)."""
    compared = table.contrast(one.eval, one.metric, one.arm, one.control, one.over)
    values = table.arrays(one.eval, one.metric, one.over).values
    if compared is None or not compared.missing:
        return {"worst_low": None, "worst_high": None}
    both = np.concatenate([values[one.arm].ravel(), values[one.control].ravel()])
    if ((both < 0) | (both > 1)).any():
        return {"worst_low": None, "worst_high": None}
    n, out = compared.clusters, compared.missing
    low, high = ((compared.difference * n + end * out) / (n + out) for end in (-1, 1))
    return {"worst_low": rounded(low), "worst_high": rounded(high)}


def _delivered(table: Table, curves: pl.DataFrame, check: Check | CurveCheck) -> bool:
    """Whether the check shows that the treatment was delivered."""
    if isinstance(check, CurveCheck):
        return _curve_passes(curves.filter(arm=check.arm, quantity=check.curve), check)
    difference = table.contrast(check.eval, check.metric, check.arm, check.control)
    if difference is None or not difference.known:
        return False
    low, high = difference.interval(Z)
    return low > 0 if table.metrics[check.eval][check.metric][1] > 0 else high < 0


def _curve_passes(points: pl.DataFrame, check: CurveCheck) -> bool:
    """Whether the mean of a training curve, over its steps and seeds, is above or below what the check says. If the
    check says neither: whether the last third of the steps is above the first (Welch's one-sided test at 5%)."""
    points = points.filter(pl.col("value").is_finite())
    if points.is_empty():
        return False
    if check.above is not None or check.below is not None:
        mean = float(points.select(pl.col("value").mean()).item())
        return (check.above is None or mean > check.above) and (check.below is None or mean < check.below)
    steps = points["step"].unique().sort()
    third = math.ceil(len(steps) / 3)
    first = points.filter(pl.col("step") <= steps[third - 1])["value"]
    last = points.filter(pl.col("step") >= steps[-third])["value"]
    if len(steps) < 2 or len(first) < 2:
        return False
    return bool(ttest_ind(last, first, equal_var=False, alternative="greater").pvalue < ERROR)
