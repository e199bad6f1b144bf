"""Training loss by step, one line for each arm and seed: a panel for losses per token, and one for losses per pair of
answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("curves",)

PANELS = {False: "loss (nats per token)", True: "loss (nats per pair of answers)"}
"""Whether an arm is trained on pairs -> the axis of its loss."""


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """Lines in the colours and shapes of the arms; seeds after the first are dashed. A value that is not finite, as in
    a diverged run, is left out."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    rows = _losses(tables["curves"]).filter(pl.col("value").is_finite() & pl.col("arm").is_in(list(arms)))
    if not len(rows):
        return None
    paired = _arms_with(tables["curves"], "reward_margin")
    panels = [
        _panel(panel, arms, title)
        for pairs, title in PANELS.items()
        if len(panel := rows.filter(pl.col("arm").is_in(paired) == pairs))
    ]
    return drawing.stack(panels)


def _panel(rows: pl.DataFrame, arms: Sequence[str], title: str) -> Any:
    import altair as alt
    import polars as pl

    from imprint.charts import _drawing as drawing

    shown, seeds = [arm for arm in arms if arm in set(rows["arm"])], sorted(set(rows["seed"]))
    scales = drawing.arm_colour(arms)
    legend = alt.Legend(title=None, orient="bottom", values=shown, columns=3)
    values = rows.select("arm", "step", "value", pl.col("seed").cast(pl.String)).to_dicts()
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("step:Q", title="optimiser step", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False)),
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
        color=alt.Color("arm:N", scale=scales["color"], legend=legend),
    )
    dashes = alt.Scale(domain=[str(seed) for seed in seeds], range=[[1, 0], [6, 3], [2, 2], [8, 2, 2, 2]])
    seed_legend = alt.Legend(title="seed", orient="bottom", symbolStrokeColor=drawing.INK) if len(seeds) > 1 else None
    shapes = alt.Shape("arm:N", scale=scales["shape"], legend=legend)
    return alt.layer(
        base.mark_line(strokeWidth=2).encode(strokeDash=alt.StrokeDash("seed:N", scale=dashes, legend=seed_legend)),
        base.mark_point(filled=True, size=40, opacity=1).encode(shape=shapes, detail="seed:N"),
    ).properties(width=drawing.WIDTH + 80, height=260)


def _losses(curves: pl.DataFrame) -> pl.DataFrame:
    # The loss of an arm trained by rewards is another quantity; the chart `rewards` shows that arm.
    import polars as pl

    curves = curves.filter(~pl.col("arm").is_in(_arms_with(curves, "reward")))
    return curves.filter(pl.col("quantity") == "loss").sort("arm", "seed", "step")


def _arms_with(curves: pl.DataFrame, quantity: str) -> list[str]:
    """The arms that have a curve of a quantity."""
    return curves.filter(curves["quantity"] == quantity)["arm"].unique().to_list()


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the number of runs, and the steps of the longest one."""
    rows = _losses(tables["curves"])
    return {"runs": rows.select("arm", "seed").n_unique(), "steps": rows["step"].max() or 0}
