"""Roles on the axis of their levels (`analyses: {x: {role_geometry: ...}}`), and how well each layer orders roles that
its axis was not made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("analyses",)


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """Two panels for each analysis and arm: the roles, a row for each level; and the correlation by layer, beside those
    of permuted levels and of the words of the descriptions."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    means = _means(tables["analyses"])
    panels = []
    for pair in means.select("analysis", "arm").unique(maintain_order=True).iter_rows(named=True):
        rows = means.filter(*(pl.col(column) == value for column, value in pair.items()))
        name = f"{pair['analysis']}: {pair['arm']}"
        panels += [_roles(rows.filter(pl.col("quantity") == "projection"), name), _by_layer(rows, name)]
    return drawing.stack(panels) if panels else None


def _means(analyses: pl.DataFrame) -> pl.DataFrame:
    """The rows of such analyses, with the means over seeds, in the table's order."""
    import polars as pl

    keys = ["analysis", "arm", "other", "layer", "kind", "quantity"]
    rows = analyses.filter(pl.col("quantity").is_in(["projection", "spearman", "spearman_permuted_95"]))
    return rows.group_by(keys, maintain_order=True).agg(pl.col("value", "null").mean())


def _roles(projections: pl.DataFrame, name: str) -> Any:
    import altair as alt

    from imprint.charts import _drawing as drawing

    values = [
        {
            **{"level": f"level {row['kind']}", "value": row["value"]},
            "told": f"{row['other']}, level {row['kind']}: {row['value']:.2f}",
        }
        for row in projections.to_dicts()
    ]
    levels = sorted({row["level"] for row in values}, reverse=True)
    roles = alt.Chart(alt.InlineData(values=values)).mark_tick(thickness=2, size=14, opacity=0.8)
    return alt.layer(
        drawing.zero_line(),
        roles.encode(
            y=alt.Y("level:N", **drawing.rows_axis(levels)),
            x=drawing.values_axis("value"),
            color=alt.value(drawing.INK),
            description="told:N",
        ),
    ).properties(
        width=drawing.WIDTH,
        height=drawing.ROW * len(levels),
        title=drawing.title(
            f"{name}, layer {projections['layer'][0]}",
            "held-out roles on the axis; 0: the low levels, 1: the high ones",
        ),
    )


def _by_layer(rows: pl.DataFrame, name: str) -> Any:
    import altair as alt
    import polars as pl

    from imprint.charts import _drawing as drawing

    held_out = rows.filter((pl.col("quantity") == "spearman") & (pl.col("kind") == "activations")).sort("layer")
    permuted = rows.filter((pl.col("quantity") == "spearman_permuted_95") & (pl.col("kind") == "activations"))
    words = rows.filter((pl.col("quantity") == "spearman") & (pl.col("kind") == "words"))
    lines = {
        "held-out roles": held_out.select("layer", "value"),
        "permuted levels, mean size": held_out.select("layer", pl.col("null").alias("value")),
        "permuted levels, 95% point": permuted.sort("layer").select("layer", "value"),
        "words of the descriptions": held_out.select("layer", value=pl.lit(words["value"][0] if len(words) else None)),
    }
    values = [
        {**row, "line": line, "told": f"{line}, layer {row['layer']}: {row['value']:.2f}"}
        for line, of_line in lines.items()
        for row in of_line.drop_nulls().to_dicts()
    ]
    dashes = alt.Scale(domain=list(lines), range=[[1, 0], [6, 3], [2, 2], [8, 2, 2, 2]])
    legend = alt.Legend(
        title=None, orient="bottom", symbolStrokeColor=drawing.INK, symbolSize=400, columns=2, labelLimit=260
    )
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False)),
        y=alt.Y("value:Q", title=["Spearman's correlation", "of projection and level"]),
        color=alt.value(drawing.INK),
    )
    return alt.layer(
        base.mark_line(strokeWidth=2, aria=False).encode(
            strokeDash=alt.StrokeDash("line:N", scale=dashes, legend=legend)
        ),
        base.mark_point(filled=True, size=20, opacity=1).encode(detail="line:N", description="told:N"),
    ).properties(width=drawing.WIDTH, height=200, title=drawing.title(f"{name}, by layer"))


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the number of roles, levels, layers and seeds."""
    import polars as pl

    means = _means(tables["analyses"])
    roles = means.filter(pl.col("quantity") == "projection")
    seeds = tables["analyses"].filter(pl.col("quantity") == "projection")["seed"].n_unique()
    layers = means.filter(pl.col("quantity") == "spearman")["layer"].drop_nulls().n_unique()
    return {"roles": roles["other"].n_unique(), "levels": roles["kind"].n_unique(), "layers": layers, "seeds": seeds}
