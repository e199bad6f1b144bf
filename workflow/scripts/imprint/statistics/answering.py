"""From scores to answers: a row for each question of the config, with its verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy.stats import ttest_ind_from_stats

from imprint.statistics import questions
from imprint.statistics.aggregate import Row, Table, counts, rounded
from imprint.statistics.history import WHOLE, Amounts, Taken
from imprint.statistics.looks import ERROR, Z
from imprint.statistics.questions import Answer, Question
from imprint.statistics.summarize import AskedQuestion, Check, CurveCheck


def answer(table: Table, asked: Sequence[AskedQuestion], curves: pl.DataFrame, look: Taken = WHOLE) -> list[Row]:
    """Rows of table `answers`. A question whose manipulation check fails is not tested, and leaves the family.
    `curves`: the rows of table `curves` of the arms that checks name."""
    passed = [question.check is None or _delivered(table, curves, question.check) for question in asked]
    places = {place(question): table.arrays(question.eval, question.metric, question.over) for question in asked}
    family = [
        Question(
            name=question.name,
            arm=question.arm,
            control=question.control,
            eval=place(question),
            kind=question.kind,
            margin=question.margin,
            direction=table.metrics[question.eval][question.metric][1],
        )
        for question, tested in zip(asked, passed, strict=True)
        if tested
    ]
    stamp: Row = {
        "share": rounded(look.share),
        "looks_before": len(look.before),
        "may_decide": look.spent_before < ERROR,
        "other_versions": look.other_versions,
    }
    answers = iter(questions.answers(family, places, look.share, look.before))
    return [
        {
            "question": question.name,
            **question.model_dump(include={"asks", "kind", "arm", "control", "eval", "metric", "margin", "over"}),
            "direction": table.metrics[question.eval][question.metric][1],
            **counts(table, question.eval, question.metric, (question.arm, question.control), question.over),
            **(_answered(next(answers)) if tested else UNTESTED),
            **_at_worst(table, question),
            **stamp,
        }
        for question, tested in zip(asked, passed, strict=True)
    ]


def place(question: AskedQuestion) -> str:
    """A name for the scores that a question is about."""
    return " ".join(filter(None, (question.eval, question.metric, question.over)))


def amounts(table: Table, asked: Sequence[AskedQuestion]) -> Amounts:
    """How much is looked at: the clusters that were asked, and the smallest number of seeds of a fitted arm."""
    arrays = {_named(question): table.arrays(question.eval, question.metric, question.over) for question in asked}
    seeds = [
        len(arrays[_named(question)].seeds[side])
        for question in asked
        for side in (question.arm, question.control)
        if side in arrays[_named(question)].fitted
    ]
    clusters = {name: scores.n_clusters for name, scores in arrays.items()}
    return Amounts(clusters=clusters, seeds=min(seeds, default=0))


def planned(table: Table, asked: Sequence[AskedQuestion], seeds: int) -> Amounts:
    """How much there will be at the last look: all clusters of the evals' datasets, and `seeds`."""
    return Amounts(
        clusters={_named(question): table.clusters(question.eval, question.over) for question in asked}, seeds=seeds
    )


def _named(question: AskedQuestion) -> str:
    return f"{question.name}: {place(question)}"


def _answered(answer: Answer) -> Row:
    """The columns of an answer that come from the statistics."""
    components = answer.variances
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
        "var_examples": rounded(components.of_examples) if components else None,
        "var_answers": rounded(components.of_answers) if components else None,
        "var_runs": rounded(components.of_runs) if components else None,
        "lending": components.lending if components else None,
    }


UNTESTED: Row = dict.fromkeys(
    (
        *("scope", "difference", "ci_low", "ci_high", "p", "smallest", "seed_sd", "examples_needed", "seeds_needed"),
        *("var_examples", "var_answers", "var_runs", "lending"),
    )
) | {"verdict": "not tested"}


def _at_worst(table: Table, question: AskedQuestion) -> Row:
    """The difference if every cluster that was left out had gone wholly to the control, or wholly to the arm. None
    where no cluster was left out, and where a score is not between 0 and 1."""
    compared = table.contrast(question.eval, question.metric, question.arm, question.control, question.over)
    values = table.arrays(question.eval, question.metric, question.over).values
    if compared is None or not compared.missing:
        return {"worst_low": None, "worst_high": None}
    both = np.concatenate([values[question.arm].ravel(), values[question.control].ravel()])
    if ((both < 0) | (both > 1)).any():
        return {"worst_low": None, "worst_high": None}
    n, left_out = compared.clusters, compared.missing
    low, high = ((compared.difference * n + end * left_out) / (n + left_out) for end in (-1, 1))
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
    before, after = ((np.mean(x), np.std(x, ddof=1), len(x)) for x in (first.to_numpy(), last.to_numpy()))
    if before[1] == after[1] == 0:
        return bool(after[0] > before[0])
    # From means and deviations: `ttest_ind` itself warns of rewards that have all reached 1.
    test = ttest_ind_from_stats(*after, *before, equal_var=False, alternative="greater")
    return bool(test.pvalue < ERROR)
