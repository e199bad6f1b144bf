"""Reinforcement fine-tuning by step: reward, the share of groups without variance, length, entropy and KL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("curves",)

SHOWN = {
    "reward": "mean reward of the step's completions",
    "zero_variance_share": "share of prompts whose completions all have one reward: they teach nothing",
    "length": "mean length of a completion, in tokens",
    "entropy": "mean entropy of the policy, in nats per token",
    "kl": "KL to the starting weights, in nats per token (arms with beta only)",
}


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One panel for each quantity, one line for each arm and seed."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    rows = _rows(tables["curves"]).filter(pl.col("value").is_finite() & pl.col("arm").is_in(list(arms)))
    panels = []
    for quantity, note in SHOWN.items():
        values = rows.filter(pl.col("quantity") == quantity)
        if len(values):
            panels.append(_panel(values, quantity, note, arms))
    return drawing.stack(panels) if panels else None


def _rows(curves: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return curves.filter(pl.col("quantity").is_in(list(SHOWN))).sort("arm", "seed", "step")


def _panel(rows: pl.DataFrame, quantity: str, note: str, arms: Sequence[str]) -> Any:
    import altair as alt

    from imprint.charts import _drawing as drawing

    scales = drawing.arm_colour(arms)
    shown = [arm for arm in arms if arm in set(rows["arm"])]
    legend = alt.Legend(title=None, orient="bottom", values=shown, columns=3)
    base = alt.Chart(alt.InlineData(values=rows.select("arm", "seed", "step", "value").to_dicts())).encode(
        x=alt.X("step:Q", title="update", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False)),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
        color=alt.Color("arm:N", scale=scales["color"], legend=legend),
        detail="seed:N",
    )
    shape = alt.Shape("arm:N", scale=scales["shape"], legend=legend)
    layers = alt.layer(
        base.mark_line(strokeWidth=2), base.mark_point(filled=True, size=30, opacity=1).encode(shape=shape)
    )
    title = drawing.title(quantity.replace("_", " "), note)
    return layers.properties(width=drawing.WIDTH + 80, height=140, title=title)


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the number of runs, the steps of the longest one, and the mean share of groups without
    variance."""
    import polars as pl

    rows = _rows(tables["curves"])
    flat = rows.filter(pl.col("quantity") == "zero_variance_share")["value"].mean()
    return {
        "runs": rows.select("arm", "seed").n_unique(),
        "steps": rows["step"].max() or 0,
        "flat": 0.0 if flat is None else flat,
    }
