"""The gates of attention heads (`analyses: {x: {gates: [ARM]}}`), by layer and head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("analyses",)


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One heat map for each arm: rows are heads, columns are layers, the colour is the mean over the seeds."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    gates = _gates(tables["analyses"])
    shown = [arm for arm in arms if arm in set(gates["arm"])]
    return drawing.stack([_panel(gates.filter(pl.col("arm") == arm), arm) for arm in shown]) if shown else None


def _gates(analyses: pl.DataFrame) -> pl.DataFrame:
    """Columns arm, layer, head and value, the mean over seeds and analyses, in the order of layers and heads."""
    import polars as pl

    rows = analyses.filter(pl.col("quantity") == "gate")
    rows = rows.with_columns(head=pl.col("kind").str.strip_prefix("head ").cast(pl.Int64))
    return rows.group_by("arm", "layer", "head").agg(pl.col("value").mean()).sort("arm", "layer", "head")


def _panel(gates: pl.DataFrame, arm: str) -> Any:
    import altair as alt

    from imprint.charts import _drawing as drawing

    layers, heads = sorted(set(gates["layer"])), sorted(set(gates["head"]))
    values = [
        {
            **{"layer": str(row["layer"]), "head": str(row["head"]), "value": row["value"]},
            "told": f"{arm}, layer {row['layer']}, head {row['head']}: gate {row['value']:.2f}",
        }
        for row in gates.to_dicts()
    ]
    axis = alt.Axis(ticks=False, domain=False, labelAngle=0, labelOverlap="parity", title="layer")
    above = sum(value > 0.5 for value in gates["value"])
    return (
        alt.Chart(alt.InlineData(values=values))
        .mark_rect(stroke=None)
        .encode(
            x=alt.X("layer:N", sort=None, scale=alt.Scale(domain=list(map(str, layers))), axis=axis),
            y=alt.Y("head:N", **drawing.rows_axis(list(map(str, heads)))),
            color=alt.Color("value:Q", scale=alt.Scale(domain=[0, 1], scheme="cividis"), legend=None),
            description="told:N",
        )
        .properties(
            width=max(drawing.WIDTH / 2, drawing.CELL_WIDTH * len(layers)),
            height=drawing.CELL_HEIGHT * len(heads),
            title=drawing.title(arm, f"heads by layer: dark 0, bright 1; {above} of {len(gates)} above 0.5"),
        )
    )


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the number of gates of an arm, of arms and of seeds."""
    import polars as pl

    gates, rows = _gates(tables["analyses"]), tables["analyses"].filter(pl.col("quantity") == "gate")
    arms = gates["arm"].n_unique()
    return {"gates": len(gates) // max(1, arms), "arms": arms, "seeds": rows["seed"].n_unique()}
