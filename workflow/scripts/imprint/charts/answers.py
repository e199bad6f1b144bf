"""Forest plot of the questions: one row for each question, in the order of the config, with its difference and its
simultaneous interval.

Questions have different units. So each row is divided by the smallest difference that its question could have seen, and
turned so that right is better; the numbers beside the row are in the question's own unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("answers",)

WIDTH = 360


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One picture of all questions; None without questions."""
    import altair as alt

    from imprint.charts import _drawing as drawing

    if not len(tables["answers"]):
        return None
    rows = [_row(place, row) for place, row in enumerate(tables["answers"].iter_rows(named=True), 1)]
    labels = [row["label"] for row in rows]
    ends = [abs(row[key]) for row in rows for key in ("low", "high", "band_low") if row[key] is not None]
    reach = 1.05 * max([1.1, *ends])
    axis = alt.Axis(
        values=[-1, 0, 1],
        labelExpr="datum.value == 0 ? '0' : datum.value < 0 ? '\u22121' : '+1'",
        title="difference, divided by the smallest one that the question could have seen",
        domain=False,
    )
    scales, scale = drawing.outcome_colour(), alt.Scale(domain=[-reach, reach], nice=False)

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", axis=axis, scale=scale)

    base = alt.Chart(alt.InlineData(values=rows)).encode(y=alt.Y("label:N", **drawing.rows_axis(labels)))
    colour = alt.Color("outcome:N", scale=scales["color"], legend=None)
    shape = alt.Shape("outcome:N", scale=scales["shape"], legend=None)
    bounded = base.transform_filter("isValid(datum.low)")
    layers = alt.layer(
        bounded.transform_filter("isValid(datum.band_low)")
        .mark_bar(color=drawing.UNDECIDED, opacity=0.25, height=drawing.ROW - 6, aria=False)
        .encode(x=x("band_low"), x2="band_high:Q"),
        bounded.mark_rule(strokeWidth=3, aria=False).encode(x=x("low"), x2="high:Q", color=colour),
        bounded.mark_point(filled=True, size=120, opacity=1).encode(
            x=x("value"), color=colour, shape=shape, **drawing.told()
        ),
        base.mark_text(align="left", fontSize=12, color=drawing.INK, aria=False).encode(
            x=alt.value(WIDTH + 10), text="numbers:N"
        ),
    )
    return layers.properties(width=WIDTH, height=drawing.ROW * len(rows))


def _row(place: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """The data of one question. Lengths are divided by `smallest`, and positive toward the better side."""
    from imprint.report import numbers
    from imprint.statistics.questions import outcome

    unit = row["direction"] * row["smallest"] if row["smallest"] else None
    ends = [None, None] if unit is None else sorted((row["ci_low"] / unit, row["ci_high"] / unit))
    margin = row["margin"] / row["smallest"] if unit and row["margin"] else None
    interval = numbers.interval(row["ci_low"], row["ci_high"])
    result = row["verdict"] if row["difference"] is None else f"{numbers.signed(row['difference'])} ({interval})"
    return {
        "label": f"{place} {row['question']}",
        "value": None if unit is None else row["difference"] / unit,
        "low": ends[0],
        "high": ends[1],
        "band_low": None if margin is None else -margin,
        "band_high": margin if margin and row["kind"] == "equivalence" else 0,
        "outcome": outcome(row["verdict"], row["direction"]),
        "numbers": f"{result} {row['metric']}",
        "told": f"{row['verdict']}: {row['arm']} minus {row['control']} on {row['eval']}, {row['metric']}: {result}, "
        f"n = {row['n_pairs']}, smallest difference {numbers.number(row['smallest'])}",
        "address": numbers.browse(row["eval"], row["arm"], row["control"]),
    }


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: how many questions there are, and whether one has a margin."""
    table = tables["answers"]
    return {"questions": len(table), "margins": bool((table["margin"] > 0).any())}
