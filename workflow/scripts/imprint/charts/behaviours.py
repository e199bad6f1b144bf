"""How arms go about their tasks: the share of responses that show a behaviour, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from imprint import charts
from imprint.scores.behaviours import METRICS

TABLES = ("summary",)
CAPTION = "behaviours.md"

CELL_WIDTH = 92
CELL_HEIGHT = 34


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Sequence[str]) -> Any | None:
    """One heat map an eval that is described by its behaviours: rows are behaviours, columns arms."""
    table = _shares(tables["summary"])
    panels = []
    for name in evals:
        rows = table.filter(pl.col("eval") == name)
        if len(rows):
            panels.append(_panel(rows, name, [arm for arm in arms if arm in set(rows["arm"])]))
    if not panels:
        return None
    margin = {"left": 5, "top": 5, "bottom": 5, "right": round(0.75 * charts.LETTER * max(map(len, arms)))}
    return charts.stack(panels).properties(padding=margin)


def _shares(summary: pl.DataFrame) -> pl.DataFrame:
    return summary.filter(pl.col("metric").is_in(list(METRICS)) & pl.col("mean").is_not_null())


def _panel(rows: pl.DataFrame, name: str, shown: list[str]) -> Any:
    values = [
        {
            "arm": row["arm"],
            "behaviour": row["metric"].replace("_", " "),
            "share": row["mean"],
            "interval": f"{row['ci_low']:.2f} to {row['ci_high']:.2f}" if row["ci_low"] is not None else "",
        }
        for row in rows.to_dicts()
    ]
    order = [metric.replace("_", " ") for metric in METRICS]
    room = charts.LETTER * max(map(len, shown))
    top = alt.Axis(orient="top", labelAngle=-35, ticks=False, domain=False, labelLimit=room, minExtent=0.62 * room)
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("arm:N", title=None, sort=None, scale=alt.Scale(domain=shown), axis=top),
        y=alt.Y("behaviour:N", **charts.rows_axis(order)),
    )
    shade = alt.Color("share:Q", scale=alt.Scale(scheme="cividis", domain=[0, 1]), legend=None)
    ink = alt.condition("datum.share > 0.5", alt.value("#111111"), alt.value("#FFFFFF"))
    layers = alt.layer(
        base.mark_rect(stroke=None).encode(color=shade),
        base.mark_text(fontSize=12, dy=-6).encode(text=alt.Text("share:Q", format=".2f"), color=ink),
        base.mark_text(fontSize=9, dy=8).encode(text="interval:N", color=ink),
    )
    return layers.properties(
        width=CELL_WIDTH * len(shown),
        height=CELL_HEIGHT * len(order),
        title=charts.title(name, "share of responses, 95% interval"),
    )


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: how many arms are shown, and the fewest responses behind a share."""
    rows = _shares(tables["summary"])
    return {"arms": rows["arm"].n_unique(), "fewest": rows["n_scored"].min() or 0}
