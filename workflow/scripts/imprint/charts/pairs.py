"""Every arm against every other arm: the difference in each eval's primary metric, with marginal 95% intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("pairs",)

CELL_WIDTH = 66
CELL_HEIGHT = 24


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One matrix for each eval: the arm of the row minus the arm of the column. A cell has a colour where its interval
    excludes 0."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    table = tables["pairs"].filter(pl.col("difference").is_not_null())
    panels = [_panel(rows, arms, evals) for name in evals if len(rows := table.filter(pl.col("eval") == name))]
    if not panels:
        return None
    # The slanted name of the last arm extends beyond the plot.
    margin = {"left": 5, "top": 5, "bottom": 5, "right": round(0.75 * drawing.LETTER * max(map(len, arms)))}
    return drawing.stack(panels).properties(padding=margin)


def _panel(rows: pl.DataFrame, arms: Sequence[str], evals: Evals) -> Any:
    import altair as alt

    from imprint.charts import _drawing as drawing

    first = rows.row(0, named=True)
    shown = [arm for arm in arms if arm in {*rows["arm"], *rows["control"]}]
    values = [_cell(side) for row in rows.iter_rows(named=True) for side in (row, _turned(row))]
    room = drawing.LETTER * max(map(len, shown))
    top = alt.Axis(orient="top", labelAngle=-35, ticks=False, domain=False, labelLimit=room, minExtent=0.62 * room)
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("control:N", title=None, sort=None, scale=alt.Scale(domain=shown), axis=top),
        y=alt.Y("arm:N", **drawing.rows_axis(shown, arms)),
    )
    colour = alt.Color("outcome:N", scale=drawing.outcome_colour()["color"], legend=None)
    decided, undecided = "datum.outcome != 'open'", "datum.outcome == 'open'"
    ink = alt.condition("datum.outcome == 'good'", alt.value("#FFFFFF"), alt.value("#111111"))
    text = base.encode(text="shown:N", **drawing.told())
    layers = alt.layer(
        base.transform_filter(decided).mark_rect(stroke=None, aria=False).encode(color=colour),
        text.transform_filter(decided).mark_text(fontSize=11, fontWeight=600).encode(color=ink),
        text.transform_filter(undecided).mark_text(fontSize=11, color=drawing.INK),
    )
    note = f"{first['metric']}, row minus column; {drawing.better_is(first['direction'])}"
    return layers.properties(
        width=CELL_WIDTH * len(shown),
        height=CELL_HEIGHT * len(shown),
        title=drawing.eval_title(evals, first["eval"], note),
    )


def _turned(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same comparison from the side of the control."""
    low, high = row["ci_low"], row["ci_high"]
    return {
        **row,
        "arm": row["control"],
        "control": row["arm"],
        "difference": -row["difference"],
        "ci_low": None if high is None else -high,
        "ci_high": None if low is None else -low,
        "wins": row["losses"],
        "losses": row["wins"],
    }


def _cell(row: Mapping[str, Any]) -> dict[str, Any]:
    from imprint.report import numbers
    from imprint.statistics.questions import side

    return {
        **{"arm": row["arm"], "control": row["control"]},
        "shown": numbers.signed(row["difference"]),
        "outcome": side(row["ci_low"], row["ci_high"], row["direction"]),
        "told": numbers.told(row),
        "address": numbers.browse(row["eval"], row["arm"], row["control"]),
    }


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the number of comparisons, and how many of their intervals exclude 0."""
    table = tables["pairs"]
    excluding = ((table["ci_low"] > 0) | (table["ci_high"] < 0)).sum()
    return {"comparisons": table["difference"].count(), "excluding": int(excluding)}
