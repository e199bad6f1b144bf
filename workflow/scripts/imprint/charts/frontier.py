"""What arms gain on one eval, against what they lose on one eval of retention, both in the units of the metrics: each
arm minus its first control. Up and to the right is better, whatever the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("comparisons",)
HEIGHT = 280
"""Of the plotting area, in pixels."""
LINE = 14
"""Height of a name, in pixels."""
GAP = 9
"""From a mark to its name, in pixels."""


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One panel for each eval that should gain and eval of retention that the same arms take; one mark for each arm,
    with both intervals and its name."""
    from imprint.charts import _drawing as drawing

    rows = {(row["eval"], row["arm"]): row for row in _against_first_control(tables["comparisons"])}
    panels = []
    for gaining in (name for name, ev in evals.items() if not ev.retention):
        for kept in (name for name, ev in evals.items() if ev.retention):
            taken = [arm for arm in arms if (gaining, arm) in rows and (kept, arm) in rows]
            if marks := [_mark(rows[gaining, arm], rows[kept, arm]) for arm in taken]:
                first = rows[gaining, taken[0]], rows[kept, taken[0]]
                panels.append(_panel(marks, *first, arms, evals))
    return drawing.stack(panels) if panels else None


def _against_first_control(comparisons: pl.DataFrame) -> list[dict[str, Any]]:
    """The comparisons of each arm with its first control, in primary metrics."""
    import polars as pl

    rows = comparisons.filter(pl.col("primary"))
    rows = rows.filter(pl.col("control") == pl.col("control").first().over("arm"))
    return rows.drop_nulls("difference").to_dicts()


def _mark(gain: Mapping[str, Any], loss: Mapping[str, Any]) -> dict[str, Any]:
    """Differences and intervals, with the sign at which more is better. What has no interval, such as a difference that
    is 0 on every example, gets one without length."""
    from imprint.report import numbers

    mark: dict[str, Any] = {"arm": gain["arm"], "control": gain["control"]}
    for name, row in (("gain", gain), ("kept", loss)):
        middle = row["difference"]
        low, high = (middle if row[end] is None else row[end] for end in ("ci_low", "ci_high"))
        ends = sorted((row["direction"] * low, row["direction"] * high))
        mark |= {name: row["direction"] * middle, f"{name}_low": ends[0], f"{name}_high": ends[1]}
    return {
        **mark,
        "told": f"{numbers.told(gain)}. What should be kept: {numbers.told(loss)}",
        "address": numbers.browse(gain["eval"], gain["arm"], gain["control"]),
    }


def _named(marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The marks, each with the place of its name, in pixels from the mark: `dx`, which is below 0 for a name on the
    left, and `dy`. No name covers another one or a mark, nor leaves the picture, where there is room for that."""
    from imprint.charts._drawing import LETTER, WIDTH

    across, down = _pixels(marks, "kept", WIDTH), [HEIGHT - up for up in _pixels(marks, "gain", HEIGHT)]
    taken = [_box(x - LINE / 2, y, LINE) for x, y in zip(across, down, strict=True)]
    named = []
    for mark, x, y in zip(marks, across, down, strict=True):
        width = LETTER * len(mark["arm"])
        places = [(dx, dy) for step in range(1, 5) for dy in (-LINE * step, LINE * step) for dx in (GAP, -GAP)]
        boxes = {(dx, dy): _box(x + dx - (width if dx < 0 else 0), y + dy, width) for dx, dy in places}
        free = (at for at, box in boxes.items() if box[0] >= 0 and box[1] <= WIDTH and not _covers(box, taken))
        dx, dy = next(free, places[0])
        taken.append(boxes[dx, dy])
        named.append({**mark, "dx": dx, "dy": dy})
    return named


def _box(left: float, middle: float, width: float) -> tuple[float, float, float, float]:
    """(left, right, top, bottom) of something as high as a name."""
    return left, left + width, middle - LINE / 2, middle + LINE / 2


def _pixels(marks: list[dict[str, Any]], way: str, length: int) -> list[float]:
    """How far the marks are from the low end of an axis that holds their intervals and 0."""
    ends = [0.0, *(mark[f"{way}{end}"] for mark in marks for end in ("_low", "_high"))]
    return [length * (mark[way] - min(ends)) / ((max(ends) - min(ends)) or 1.0) for mark in marks]


def _covers(box: tuple[float, ...], taken: Sequence[tuple[float, ...]]) -> bool:
    """Whether a box stands over one of those that are taken."""
    left, right, top, bottom = box
    return any(left < other[1] and other[0] < right and top < other[3] and other[2] < bottom for other in taken)


def _panel(
    marks: list[dict[str, Any]], gain: Mapping[str, Any], loss: Mapping[str, Any], arms: Sequence[str], evals: Evals
) -> Any:
    import altair as alt

    from imprint.charts import _drawing as drawing

    scales = drawing.arm_colour(arms)
    colour = alt.Color("arm:N", scale=scales["color"], legend=None)

    def up(field: str) -> alt.Y:
        title = ["gained in", f"{gain['eval']}, {gain['metric']}"]
        return alt.Y(f"{field}:Q", title=title, axis=alt.Axis(tickCount=5), scale=alt.Scale(nice=5))

    def across(field: str) -> alt.X:
        title = f"lost (left of 0) or gained in {loss['eval']}, {loss['metric']}"
        return alt.X(f"{field}:Q", title=title, axis=alt.Axis(tickCount=5), scale=alt.Scale(nice=5))

    base = alt.Chart(alt.InlineData(values=_named(marks))).encode(color=colour)
    zero = alt.Chart(alt.InlineData(values=[{"gain": 0, "kept": 0}]))
    dashed = zero.mark_rule(color=drawing.INK, strokeDash=[3, 3], opacity=0.7, aria=False)
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.6, aria=False)
    layers = alt.layer(
        dashed.encode(x=across("kept")),
        dashed.encode(y=up("gain")),
        bars.encode(x=across("kept"), y=up("gain_low"), y2="gain_high:Q"),
        bars.encode(y=up("gain"), x=across("kept_low"), x2="kept_high:Q"),
        base.mark_point(filled=True, size=120, opacity=1).encode(
            x=across("kept"),
            y=up("gain"),
            shape=alt.Shape("arm:N", scale=scales["shape"], legend=None),
            **drawing.told(),
        ),
        base.mark_text(
            align=alt.expr("datum.dx < 0 ? 'right' : 'left'"),
            baseline="middle",
            dx=alt.expr("datum.dx"),
            dy=alt.expr("datum.dy"),
            fontSize=12,
            color=drawing.INK,
            aria=False,
        ).encode(x=across("kept"), y=up("gain"), text="arm:N", color=alt.value(drawing.INK)),
    )
    controls = {mark["control"] for mark in marks}
    zero_is = controls.pop() if len(controls) == 1 else "each arm's first control"
    note = f"0 is {zero_is}; up: more gained, right: less lost"
    title = drawing.eval_title(evals, gain["eval"], note)
    return layers.properties(width=drawing.WIDTH, height=HEIGHT, title=title)


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the number of arms that have a control."""
    return {"arms": len({row["arm"] for row in _against_first_control(tables["comparisons"])})}
