"""The accuracy of simple rules on COAT's questions of states, dataset by dataset, beside chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("analyses",)


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One panel for each dataset, one dot for each rule; a bar across the row is chance."""
    from imprint.charts import _drawing as drawing

    rows = _rows(tables["analyses"])
    datasets = rows["other"].unique(maintain_order=True).to_list()
    panels = [_panel(name, [row for row in rows.to_dicts() if row["other"] == name]) for name in datasets]
    return drawing.stack(panels) if panels else None


def _rows(analyses: pl.DataFrame) -> pl.DataFrame:
    """The accuracies; those of the first seed, since a rule has no seeds."""
    import polars as pl

    rows = analyses.filter(pl.col("quantity") == "accuracy")
    return rows.unique(["analysis", "arm", "other"], keep="first", maintain_order=True)


def _panel(dataset: str, rows: list[dict[str, Any]]) -> Any:
    import altair as alt

    from imprint.charts import _drawing as drawing

    values = [
        {
            "rule": row["arm"].replace("_", " "),
            "value": row["value"],
            "chance": row["null"],
            "told": f"{row['arm'].replace('_', ' ')}: {row['value']:.3f}; chance {row['null']:.3f}",
        }
        for row in rows
    ]
    y = alt.Y("rule:N", **drawing.rows_axis([value["rule"] for value in values]))
    base = alt.Chart(alt.InlineData(values=values)).encode(y=y)
    ticks = base.mark_tick(color=drawing.INK, thickness=2, aria=False).encode(
        x=drawing.values_axis("chance", domain=[0, 1]), opacity=alt.value(0.7)
    )
    dots = base.mark_point(filled=True, size=70, opacity=1, color=drawing.UNDECIDED).encode(
        x=drawing.values_axis("value", domain=[0, 1]), description="told:N"
    )
    height = drawing.ROW * len(values)
    return (ticks + dots).properties(
        width=drawing.WIDTH, height=height, title=drawing.title(dataset, "accuracy; the bar is chance")
    )


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the number of datasets, and the best rule of each with its accuracy."""
    best: dict[str, dict[str, Any]] = {}
    for row in _rows(tables["analyses"]).to_dicts():
        if row["other"] not in best or row["value"] > best[row["other"]]["value"]:
            best[row["other"]] = row
    words = ", ".join(f"{row['arm'].replace('_', ' ')} on {name} ({row['value']:.2f})" for name, row in best.items())
    return {"datasets": len(best), "best": words}
