"""The coefficients of composed arms over depth and kind of module: where each task vector was taken up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from imprint import charts

TABLES = ("coefficients",)


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: charts.Evals) -> Any | None:
    """One heat map an arm and vector: rows are kinds of module, columns layers, with what stands outside the layers in
    a column of its own. Colours of one arm share one scale."""
    table = _means(tables["coefficients"])
    panels = []
    for arm in arms:
        rows = table.filter(pl.col("arm") == arm)
        largest = max((abs(value) for value in rows["value"].to_list()), default=0.0) or 1.0
        for vector in rows["vector"].unique(maintain_order=True):
            cells = rows.filter(pl.col("vector") == vector)
            panels.append(charts.depth_map(cells, f"{arm}: {vector}", "coefficients", largest))
    return charts.stack(panels) if panels else None


def _means(coefficients: pl.DataFrame) -> pl.DataFrame:
    """Columns arm, vector, layer, kind, value (the mean over parts and seeds), in the table's order."""
    kind = pl.col("kind").str.strip_suffix(".weight")
    return coefficients.group_by("arm", "vector", "layer", kind, maintain_order=True).agg(pl.col("value").mean())


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
