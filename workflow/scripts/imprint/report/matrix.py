"""The matrix of arms and evals, and the shares of responses that were cut, unparsed, failed or unverified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from imprint.report import numbers
from imprint.report.facts import Spec
from imprint.statistics import questions

COUNTS = (("cut", "n_truncated"), ("unparsed", "n_unparsed"), ("failed", "n_error"), ("unverified", "n_unverified"))
NOTICEABLE = 0.1  # the page marks a gap of at least this size between the shares of an arm and of its control
Row = Mapping[str, Any]


class Share(NamedTuple):
    """How many of an arm's responses were, for example, cut. `apart`: the control's share is noticeably different."""

    label: str
    text: str
    apart: bool


class Cell(NamedTuple):
    """An arm on an eval. `outcome`: the side of 0 on which the marginal interval against the arm's first control lies;
    None without a comparison."""

    summary: Row
    control: str | None
    outcome: str | None
    words: str
    address: str
    shares: list[Share]


class Column(NamedTuple):
    """An eval with its primary metric."""

    name: str
    metric: str
    direction: int
    retention: bool


def columns(summary: Sequence[Row], facts: Spec) -> list[Column]:
    """The evals that have scores, in the order of the config."""
    primary = {row["eval"]: row for row in summary if row["primary"]}
    return [
        Column(item.name, primary[item.name]["metric"], primary[item.name]["direction"], item.retention)
        for item in facts.evals
        if item.name in primary
    ]


def cells(summary: Sequence[Row], comparisons: Sequence[Row], facts: Spec) -> dict[tuple[str, str], Cell]:
    """(arm, eval) -> the cell, for every arm that takes the eval."""
    rows = {(row["arm"], row["eval"]): row for row in summary if row["primary"]}
    against = {(row["arm"], row["control"], row["eval"]): row for row in comparisons if row["primary"]}
    first_control = {arm.name: arm.control[0] if arm.control else None for arm in facts.arms}
    matrix = {}
    for (arm, ev), row in rows.items():
        control = first_control.get(arm)
        compared = against.get((arm, control or "", ev))
        outcome = questions.side(compared["ci_low"], compared["ci_high"], row["direction"]) if compared else None
        beside = rows.get((control or "", ev))
        matrix[arm, ev] = Cell(
            summary=row,
            control=control if compared else None,
            outcome=outcome,
            words=_words(compared, outcome),
            address=numbers.browse(ev, arm, control if compared else None),
            shares=shares(row, beside),
        )
    return matrix


def _words(compared: Row | None, outcome: str | None) -> str:
    """The mark of a cell in words, for screen readers and tooltips."""
    if compared is None:
        return ""
    relation = {"good": "better than", "bad": "worse than", "open": "not told apart from"}[str(outcome)]
    interval = numbers.interval(compared["ci_low"], compared["ci_high"])
    return f"{relation} {compared['control']}: {numbers.signed(compared['difference'])} ({interval})"


def shares(row: Row, control: Row | None) -> list[Share]:
    """The shares that are not 0 for an arm or its control. An arm without a control is compared with itself."""
    beside = control or row
    return [
        Share(
            label=label,
            text=numbers.percent(row[key], row["n_attempted"]),
            apart=abs(_share(row, key) - _share(beside, key)) >= NOTICEABLE,
        )
        for label, key in COUNTS
        if row[key] or beside[key]
    ]


def _share(row: Row, key: str) -> float:
    return row[key] / row["n_attempted"] if row["n_attempted"] else 0.0


def spent(costs: pl.DataFrame, generations: pl.DataFrame, facts: Spec) -> list[dict[str, Any]]:
    """A row for each arm, in the order of the config: the tokens read in training (`trained`) and written in evals
    (`asked`), over all seeds, the mean number of tokens written for one example (`per_example`), and the mean number of
    those in the answer (`per_answer`). None where a number is not known. An arm without any of these is left out."""
    generated = {item.responses or item.name for item in facts.evals if item.score and item.asks == "generate"}
    lengths = (
        generations.filter(pl.col("eval").is_in(generated))
        .group_by("arm", "seed", "eval", "example_id", "sample")
        .agg(pl.col("response_tokens").sum(), pl.col("answer_tokens").filter("final").first())
        .group_by("arm")
        .agg(pl.col("response_tokens", "answer_tokens").mean())
    )
    means = {arm: (written, answer) for arm, written, answer in lengths.rows()}
    tokens = {
        (arm, stage): total for arm, stage, total in costs.group_by("arm", "stage").agg(pl.col("tokens").sum()).rows()
    }
    rows = [
        {
            "arm": arm.name,
            "trained": tokens.get((arm.name, "train")) or None,
            "asked": tokens.get((arm.name, "generate")) or None,
            "per_example": means.get(arm.name, (None, None))[0],
            "per_answer": means.get(arm.name, (None, None))[1],
        }
        for arm in facts.arms
    ]
    return [row for row in rows if row["trained"] or row["asked"] or row["per_example"]]


def unmeasured(cells: Mapping[tuple[str, str], Cell], facts: Spec) -> list[tuple[str, list[str]]]:
    """(eval of retention, arms with a control that do not take it): what nothing is known of."""
    compared = [arm.name for arm in facts.arms if arm.control]
    guarded = [item.name for item in facts.evals if item.retention]
    absent = [(name, [arm for arm in compared if (arm, name) not in cells]) for name in guarded]
    return [(name, arms) for name, arms in absent if arms]
