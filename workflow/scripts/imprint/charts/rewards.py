"""Reinforcement fine-tuning by step: reward, the share of groups without variance, length, entropy and KL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from imprint import charts

TABLES = ("curves",)

SHOWN = {
    "reward": "mean reward of the step's completions",
    "zero_variance_share": "share of prompts whose completions all have one reward: they teach nothing",
    "length": "mean length of a completion, in tokens",
    "entropy": "mean entropy of the policy, in nats per token",
    "kl": "KL to the starting weights, in nats per token (arms with beta only)",
}


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: charts.Evals) -> Any | None:
    """One panel a quantity, one line an arm and seed."""
    rows = _rows(tables["curves"]).filter(pl.col("value").is_finite() & pl.col("arm").is_in(list(arms)))
    panels = []
    for quantity, note in SHOWN.items():
        some = rows.filter(pl.col("quantity") == quantity)
        if len(some):
            panels.append(_panel(some, quantity, note, arms))
    return charts.stack(panels) if panels else None


def _rows(curves: pl.DataFrame) -> pl.DataFrame:
    return curves.filter(pl.col("quantity").is_in(list(SHOWN))).sort("arm", "seed", "step")


def _panel(rows: pl.DataFrame, quantity: str, note: str, arms: Sequence[str]) -> Any:
    scales = charts.arm_colour(arms)
    used = alt.Legend(title=None, orient="bottom", values=[a for a in arms if a in set(rows["arm"])], columns=3)
    base = alt.Chart(alt.InlineData(values=rows.select("arm", "seed", "step", "value").to_dicts())).encode(
        x=alt.X("step:Q", title="update", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False)),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
        color=alt.Color("arm:N", scale=scales["color"], legend=used),
        detail="seed:N",
    )
    shape = alt.Shape("arm:N", scale=scales["shape"], legend=used)
    layers = alt.layer(
        base.mark_line(strokeWidth=2), base.mark_point(filled=True, size=30, opacity=1).encode(shape=shape)
    )
    title = charts.title(quantity.replace("_", " "), note)
    return layers.properties(width=charts.WIDTH + 80, height=140, title=title)


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: how many runs there are, their longest, and the share of groups without variance over all."""
    rows = _rows(tables["curves"])
    flat = rows.filter(pl.col("quantity") == "zero_variance_share")["value"].mean()
    return {
        "runs": rows.select("arm", "seed").n_unique(),
        "steps": rows["step"].max() or 0,
        "flat": 0.0 if flat is None else flat,
    }
