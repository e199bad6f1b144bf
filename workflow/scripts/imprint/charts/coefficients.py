"""The coefficients of composed arms over depth and kind of module: where each task vector was taken up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from imprint import charts

TABLES = ("coefficients",)
CAPTION = "coefficients.md"

CELL_HEIGHT = 17
LEAST = 13  # width of a layer's cell


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: charts.Evals) -> Any | None:
    """One heat map an arm and vector: rows are kinds of module, columns layers, with what stands outside the layers in
    a column of its own. Colours of one arm share one scale."""
    table = _means(tables["coefficients"])
    panels = []
    for arm in arms:
        rows = table.filter(pl.col("arm") == arm)
        largest = max((abs(value) for value in rows["value"].to_list()), default=0.0) or 1.0
        for vector in rows["vector"].unique(maintain_order=True):
            panels.append(_panel(rows.filter(pl.col("vector") == vector), arm, vector, largest))
    return charts.stack(panels) if panels else None


def _means(coefficients: pl.DataFrame) -> pl.DataFrame:
    """Columns arm, vector, layer, kind, value (the mean over parts and seeds), in the table's order."""
    kind = pl.col("kind").str.strip_suffix(".weight")
    return coefficients.group_by("arm", "vector", "layer", kind, maintain_order=True).agg(pl.col("value").mean())


def _panel(rows: pl.DataFrame, arm: str, vector: str, largest: float) -> Any:
    columns = ["none", *map(str, sorted(rows["layer"].drop_nulls().unique()))]
    kinds = rows["kind"].unique(maintain_order=True).to_list()
    values = [{**row, "layer": "none" if row["layer"] is None else str(row["layer"])} for row in rows.to_dicts()]
    axis = alt.Axis(ticks=False, domain=False, labelAngle=0, labelOverlap="parity", title="layer")
    # Blue and orange run away from zero, which is grey, and stay apart for all kinds of colour vision.
    scale = alt.Scale(
        domain=[-largest, 0, largest], range=[charts.BETTER, "#DDDDDD", charts.WORSE], interpolate="rgb", clamp=True
    )
    return (
        alt.Chart(alt.InlineData(values=values))
        .mark_rect(stroke=None)
        .encode(
            x=alt.X("layer:N", sort=None, scale=alt.Scale(domain=columns), axis=axis),
            y=alt.Y("kind:N", **charts.rows_axis(kinds)),
            color=alt.Color("value:Q", scale=scale, legend=None),
        )
        .properties(
            width=max(charts.WIDTH / 2, LEAST * len(columns)),
            height=CELL_HEIGHT * len(kinds),
            title=charts.title(f"{arm}: {vector}", f"coefficients: blue {-largest:.2g}, grey 0, orange {largest:.2g}"),
        )
    )


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: how many coefficients, arms and seeds there are, and their range."""
    table = tables["coefficients"]
    values = table["value"].to_list() or [0.0]
    return {
        "coefficients": len(table),
        "arms": table["arm"].n_unique(),
        "seeds": table["seed"].n_unique(),
        "smallest": f"{min(values):.2f}",
        "largest": f"{max(values):.2f}",
    }
