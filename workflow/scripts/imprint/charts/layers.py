"""How a fit of `method: direction` has chosen its layer: the loss of the rows that choose, while the direction is added
at each layer in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("curves",)


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One panel for each arm: the mean over seeds as a line, the seeds as small dots, and the layer of the least mean
    as a diamond."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    losses = _losses(tables["curves"])
    shown = [arm for arm in arms if arm in set(losses["arm"])]
    return drawing.stack([_panel(losses.filter(pl.col("arm") == arm), arm) for arm in shown]) if shown else None


def _losses(curves: pl.DataFrame) -> pl.DataFrame:
    """Columns arm, seed, layer and value, in nats a token; losses that are not finite are left out."""
    import polars as pl

    rows = curves.filter((pl.col("quantity") == "loss_by_layer") & pl.col("value").is_finite())
    return rows.select("arm", "seed", pl.col("step").alias("layer"), "value").sort("arm", "seed", "layer")


def _panel(losses: pl.DataFrame, arm: str) -> Any:
    import altair as alt
    import polars as pl

    from imprint.charts import _drawing as drawing

    means = losses.group_by("layer").agg(pl.col("value").mean()).sort("layer")
    best = means.sort("value", "layer").head(1)
    axis = alt.Axis(tickMinStep=1, labelFlush=False)
    x = alt.X("layer:Q", title="layer", axis=axis, scale=alt.Scale(nice=False))
    y = alt.Y("value:Q", title="loss (nats per token)", scale=alt.Scale(zero=False))

    def told(rows: pl.DataFrame, what: str) -> Any:
        values = [
            {**row, "told": f"{arm}, layer {row['layer']}: {row['value']:.3f} nats per token, {what}"}
            for row in rows.to_dicts()
        ]
        return alt.Chart(alt.InlineData(values=values)).encode(x=x, y=y, color=alt.value(drawing.INK))

    return alt.layer(
        told(losses, "one seed").mark_point(filled=True, opacity=1, size=14).encode(description="told:N"),
        told(means, "mean").mark_line(strokeWidth=2, aria=False),
        told(best, "mean, the least")
        .mark_point(filled=True, opacity=1, size=120, shape="diamond")
        .encode(description="told:N"),
    ).properties(width=drawing.WIDTH, height=180, title=drawing.title(arm, f"least at layer {best['layer'][0]}"))


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the number of arms, seeds and layers."""
    losses = _losses(tables["curves"])
    return {
        column: losses[name].n_unique() for column, name in (("arms", "arm"), ("seeds", "seed"), ("layers", "layer"))
    }
