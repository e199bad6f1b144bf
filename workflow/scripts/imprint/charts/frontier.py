"""What arms gain on one eval, against what they lose on evals of retention: each arm minus its first control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("comparisons",)


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One panel for each eval that should gain, one mark for each arm that takes this eval and one of retention."""
    from imprint.charts import _drawing as drawing

    rows = against_first_control(tables["comparisons"])
    losses = [row for row in rows if evals[row["eval"]].retention]
    worst = {arm: min((row for row in losses if row["arm"] == arm), key=reach, default=None) for arm in arms}
    panels = []
    for name, ev in evals.items():
        gains = [row for row in rows if row["eval"] == name and not ev.retention and worst[row["arm"]]]
        if gains:
            panels.append(_panel([_mark(row, worst[row["arm"]] or row) for row in gains], gains[0], arms, evals))
    return drawing.stack(panels) if panels else None


def against_first_control(comparisons: pl.DataFrame) -> list[dict[str, Any]]:
    """The comparisons of each arm with its first control, in primary metrics, that have an interval."""
    import polars as pl

    rows = comparisons.filter(pl.col("primary"))
    rows = rows.filter(pl.col("control") == pl.col("control").first().over("arm"))
    return rows.drop_nulls("ci_low").to_dicts()


def reach(row: Mapping[str, Any]) -> float:
    """The difference toward the better side, in half-widths of its interval: beyond 1 or -1, the interval excludes 0.
    The half-width reaches from the difference to the end of the interval that faces 0."""
    difference = row["difference"]
    half_width = difference - row["ci_low"] if difference > 0 else row["ci_high"] - difference
    return float(row["direction"] * difference / half_width) if half_width > 0 else 0.0


def _mark(gain: Mapping[str, Any], loss: Mapping[str, Any]) -> dict[str, Any]:
    from imprint.report import numbers

    return {
        **{"arm": gain["arm"], "gain": gain["difference"], "low": gain["ci_low"], "high": gain["ci_high"]},
        "loss": reach(loss),
        "told": f"{numbers.told(gain)}. Worst of what should be kept: {numbers.told(loss)}",
        "address": numbers.browse(gain["eval"], gain["arm"], gain["control"]),
    }


def _panel(marks: list[dict[str, Any]], first: Mapping[str, Any], arms: Sequence[str], evals: Evals) -> Any:
    import altair as alt

    from imprint.charts import _drawing as drawing

    scales = drawing.arm_colour(arms)
    colour = alt.Color("arm:N", scale=scales["color"], legend=None)
    lowest, highest = min(-1.5, *(mark["loss"] for mark in marks)), max(1.5, *(mark["loss"] for mark in marks))
    axis = alt.Axis(tickCount=5)
    y = alt.Y(
        "loss:Q",
        title=["worst difference on what should", "be kept, in half-widths"],
        axis=axis,
        scale=alt.Scale(domain=[lowest - 0.3, highest + 0.3], nice=False),
    )
    base = alt.Chart(alt.InlineData(values=marks)).encode(y=y, color=colour)
    lines = alt.Chart(alt.InlineData(values=[{"loss": 0}, {"loss": -1}])).mark_rule(
        color=drawing.INK, strokeDash=[3, 3], opacity=0.7, aria=False
    )
    layers = alt.layer(
        drawing.zero_line(),
        lines.encode(y=y),
        base.mark_rule(strokeWidth=1.5, opacity=0.7, aria=False).encode(x=drawing.values_axis("low"), x2="high:Q"),
        base.mark_point(filled=True, size=120, opacity=1).encode(
            x=drawing.values_axis("gain"),
            shape=alt.Shape("arm:N", scale=scales["shape"], legend=None),
            **drawing.told(),
        ),
        alt.Chart(alt.InlineData(values=marks))
        .mark_text(align="left", dx=9, dy=-9, fontSize=12, color=drawing.INK, aria=False)
        .encode(y=y, x=drawing.values_axis("gain"), text="arm:N"),
    )
    side = "right" if first["direction"] == 1 else "left"
    note = f"across: difference in {first['metric']}, better to the {side}; up: less is lost"
    return layers.properties(width=drawing.WIDTH, height=260, title=drawing.eval_title(evals, first["eval"], note))


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the number of arms that have a control."""
    return {"arms": len({row["arm"] for row in against_first_control(tables["comparisons"])})}
