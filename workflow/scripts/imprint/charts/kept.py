"""The share of each parent's gain that an arm keeps: (arm - base) / (parent - base), with a 95% interval.

An arm's parents here are the arms that it is compared with, directly or by way of its controls, and that have a control
of their own, the base. A parent counts on the evals where the interval of its gain excludes 0, to the better side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("comparisons", "pairs")


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One panel for each parent and eval, one row for each arm, and lines at 0 (the base) and 1 (the parent)."""
    from imprint.charts import _drawing as drawing

    rows = list(shares(tables, arms, evals))
    panels = []
    for name in evals:
        for parent in arms:
            if of_panel := [row for row in rows if (row["eval"], row["parent"]) == (name, parent)]:
                panels.append(_panel(of_panel, evals, max((row["arm"] for row in rows), key=len)))
    return drawing.stack(panels) if panels else None


def shares(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Iterator[dict[str, Any]]:
    """arm, parent, base, eval, share, low, high, for all that are known. In the order of evals, parents, arms."""
    import polars as pl

    from imprint.statistics import shares as statistics

    controls: dict[str, list[str]] = {}
    for row in tables["comparisons"].filter(pl.col("primary")).iter_rows(named=True):
        controls.setdefault(row["arm"], []).append(row["control"])
    known = {(row["eval"], row["arm"], row["control"]): row for row in tables["pairs"].drop_nulls("ci_low").to_dicts()}

    def difference(name: str, arm: str, control: str) -> statistics.Difference | None:
        """Toward the better side."""
        row, sign = known.get((name, arm, control)), 1
        if row is None:
            row, sign = known.get((name, control, arm)), -1
        if row is None:
            return None
        return statistics.Difference(sign * row["direction"] * row["difference"], (row["ci_high"] - row["ci_low"]) / 2)

    for name in evals:
        for parent in arms:
            base = next(iter(controls.get(parent, [])), None)
            gain = difference(name, parent, base) if base else None
            if base is None or gain is None or gain.value <= gain.half_width:
                continue
            for arm in arms:
                above = _above(arm, controls)
                if parent not in above or base not in above:
                    continue
                arms_gain, between = difference(name, arm, base), difference(name, arm, parent)
                share = statistics.kept(arms_gain, gain, between) if arms_gain and between else None
                if share:
                    yield {
                        **{"arm": arm, "parent": parent, "base": base, "eval": name},
                        **{"share": share.value, "low": share.low, "high": share.high},
                    }


def _above(arm: str, controls: Mapping[str, list[str]]) -> set[str]:
    """The arms that an arm is compared with, directly or by way of its controls."""
    found: set[str] = set()
    open_ends = [*controls.get(arm, [])]
    while open_ends:
        control = open_ends.pop()
        if control not in found:
            found.add(control)
            open_ends += controls.get(control, [])
    return found - {arm}


def _panel(rows: list[dict[str, Any]], evals: Evals, longest: str) -> Any:
    import altair as alt

    from imprint.charts import _drawing as drawing
    from imprint.report import numbers

    first = rows[0]
    values = [
        {
            **row,
            "told": f"{row['arm']} keeps {row['share']:.2f} ({row['low']:.2f} to {row['high']:.2f}) of the gain of "
            f"{row['parent']} over {row['base']} on {row['eval']}",
            "address": numbers.browse(row["eval"], row["arm"], row["parent"]),
        }
        for row in rows
    ]
    y = alt.Y("arm:N", **drawing.rows_axis([row["arm"] for row in rows], [longest]))
    base = alt.Chart(alt.InlineData(values=values)).encode(y=y, color=alt.value(drawing.INK))
    lines = alt.Chart(alt.InlineData(values=[{"share": 0}, {"share": 1}])).mark_rule(
        color=drawing.INK, strokeDash=[3, 3], opacity=0.7, aria=False
    )
    layers = alt.layer(
        lines.encode(x=drawing.values_axis("share")),
        base.mark_rule(strokeWidth=2, aria=False).encode(x=drawing.values_axis("low"), x2="high:Q"),
        base.mark_point(filled=True, size=80, opacity=1).encode(x=drawing.values_axis("share"), **drawing.told()),
    )
    note = f"share of the gain of {first['parent']} over {first['base']}; 0 is {first['base']}, 1 is {first['parent']}"
    return layers.properties(
        width=drawing.WIDTH,
        height=drawing.ROW * len(rows),
        title=drawing.eval_title(evals, first["eval"], note),
    )


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """None: the caption has no numbers."""
    return {}
