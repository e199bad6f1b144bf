"""The coefficients of composed arms by layer and kind of module: how much of each task vector each block has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("coefficients",)


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One heat map for each arm and vector (`drawing.depth_map`). The colours of one arm share a scale."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    table = _means(tables["coefficients"])
    panels = []
    for arm in arms:
        rows = table.filter(pl.col("arm") == arm)
        largest = max((abs(value) for value in rows["value"].to_list()), default=0.0) or 1.0
        for vector in rows["vector"].unique(maintain_order=True):
            cells = rows.filter(pl.col("vector") == vector)
            panels.append(drawing.depth_map(cells, f"{arm}: {vector}", "coefficients", largest))
    return drawing.stack(panels) if panels else None


def _means(coefficients: pl.DataFrame) -> pl.DataFrame:
    """Columns arm, vector, layer, kind and value (a mean over parts and seeds), in the table's order."""
    import polars as pl

    kind = pl.col("kind").str.strip_suffix(".weight")
    return coefficients.group_by("arm", "vector", "layer", kind, maintain_order=True).agg(pl.col("value").mean())


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the number of coefficients, arms and seeds, and the range of the coefficients."""
    table = tables["coefficients"]
    values = table["value"].to_list() or [0.0]
    return {
        "coefficients": len(table),
        "arms": table["arm"].n_unique(),
        "seeds": table["seed"].n_unique(),
        "smallest": f"{min(values):.2f}",
        "largest": f"{max(values):.2f}",
    }
