"""Charts: functions of tables to a picture, with one theme.

A chart module has TABLES (the tables it reads), `chart(tables, arms, evals)` (`evals` maps each to its `Distribution`;
None when there is nothing to show) and `facts(tables)` (numbers for its caption, resources/captions/NAME.md).

Colours are Okabe and Ito's, which stay apart for colour-blind readers ("Color Universal Design", 2008); their black is
left out because it vanishes on a dark page, their yellow comes last because it is faint on a light one. Arms differ by
shape as well. Text and axes are drawn in `currentColor`, so that a chart reads on light and dark pages.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import jinja2
import markupsafe
import polars as pl

from imprint.errors import ImprintError

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#999999", "#F0E442")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
BETTER, WORSE, UNDECIDED = "#0072B2", "#D55E00", "#999999"

INK = "#010203"  # stands for currentColor until the SVG is written; occurs nowhere else
FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif"
WIDTH = 460  # of the plotting area, in pixels
ROW = 24  # height of one arm or pair
CELL_WIDTH, CELL_HEIGHT = 13, 17  # least width and height of a heat map's cell
LETTER = 7.6  # width of a letter of a label in the widest usual font

_STYLE = (
    "<style>.imprint-chart{color:#1b1f24;background:transparent}"
    "@media (prefers-color-scheme:dark){.imprint-chart{color:#e6e8eb}}</style>"
)


class Distribution(NamedTuple):
    """How an eval's kinds of rows (types of instructions) stand to those that some arm is trained on: in words, empty
    where there is nothing to tell apart, and the kinds that are held out."""

    told: str = ""
    held_out: Sequence[str] = ()


Evals = Mapping[str, Distribution]


def arm_colour(arms: Sequence[str]) -> dict[str, alt.Scale]:
    """Scales `color` and `shape` of the arms, in their order. Eight colours and seven shapes: 56 arms differ."""
    turn = range(len(arms))
    return {
        "color": alt.Scale(domain=list(arms), range=[COLOURS[i % len(COLOURS)] for i in turn]),
        "shape": alt.Scale(domain=list(arms), range=[SHAPES[i % len(SHAPES)] for i in turn]),
    }


def stack(panels: Sequence[Any]) -> Any:
    """Panels below one another, each with its own axes."""
    return alt.vconcat(*panels, spacing=18).resolve_scale(x="independent", y="independent")


def title(text: str, note: str = "") -> alt.TitleParams:
    """A panel's title with a smaller note under it."""
    return alt.TitleParams(text=text, subtitle=[note] if note else [])


def eval_title(evals: Evals, name: str, note: str) -> alt.TitleParams:
    """A panel's title that is an eval's name, and says whether it is in the distribution that was trained on."""
    told = evals[name].told
    return title(f"{name}: {told}" if told else name, note)


def rows_axis(labels: Sequence[str], scale_to: Sequence[str] | None = None) -> dict[str, Any]:
    """Keywords of a `y` channel with one labelled row each, in the given order. Room for the labels (the longest of
    `scale_to`) is set by hand: readers' fonts may be wider than those the SVG was laid out with."""
    room = LETTER * max(map(len, scale_to or labels))
    axis = alt.Axis(ticks=False, domain=False, labelPadding=8, minExtent=room, labelLimit=room)
    return {"title": None, "sort": None, "scale": alt.Scale(domain=list(labels)), "axis": axis}


def values_axis(field: str, **scale: Any) -> alt.X:
    """A quantitative `x` channel with few, level tick labels."""
    axis = alt.Axis(tickCount=5, labelFlush=False)
    return alt.X(f"{field}:Q", title=None, axis=axis, scale=alt.Scale(nice=5, **scale))


def depth_map(rows: pl.DataFrame, name: str, what: str, largest: float) -> Any:
    """A heat map over the model: rows are kinds of module, columns layers, with what stands outside the layers in a
    column of its own. `rows` has columns layer, kind and value; colours run from -largest over 0 to largest."""
    columns = ["none", *map(str, sorted(rows["layer"].drop_nulls().unique()))]
    kinds = rows["kind"].unique(maintain_order=True).to_list()
    values = [
        {"layer": "none" if layer is None else str(layer), "kind": kind, "value": value}
        for layer, kind, value in rows.select("layer", "kind", "value").iter_rows()
    ]
    axis = alt.Axis(ticks=False, domain=False, labelAngle=0, labelOverlap="parity", title="layer")
    # Blue and orange run away from zero, which is grey, and stay apart for all kinds of colour vision.
    scale = alt.Scale(domain=[-largest, 0, largest], range=[BETTER, "#DDDDDD", WORSE], interpolate="rgb", clamp=True)
    return (
        alt.Chart(alt.InlineData(values=values))
        .mark_rect(stroke=None)
        .encode(
            x=alt.X("layer:N", sort=None, scale=alt.Scale(domain=columns), axis=axis),
            y=alt.Y("kind:N", **rows_axis(kinds)),
            color=alt.Color("value:Q", scale=scale, legend=None),
        )
        .properties(
            width=max(WIDTH / 2, CELL_WIDTH * len(columns)),
            height=CELL_HEIGHT * len(kinds),
            title=title(name, f"{what}: blue {-largest:.2g}, grey 0, orange {largest:.2g}"),
        )
    )


def better_is(direction: int) -> str:
    """What a metric's direction means, in words."""
    return {1: "higher is better", -1: "lower is better"}.get(direction, "descriptive")


def svg(chart: Any) -> str:
    """The chart as SVG text: transparent, text and axes in currentColor, ids made its own so that several charts can
    stand in one page. Equal charts give equal bytes."""
    import vl_convert

    text = vl_convert.vegalite_to_svg(chart.configure(**_theme()).to_json(indent=None), vl_version="6.4")
    text = re.sub(INK + r"|rgb\(1, ?2, ?3\)", "currentColor", text)
    own = "c" + hashlib.sha256(text.encode()).hexdigest()[:8] + "-"
    for name in sorted(set(re.findall(r'\bid="([^"]+)"', text)), key=len, reverse=True):
        text = re.sub(rf'id="{re.escape(name)}"', f'id="{own}{name}"', text)
        text = text.replace(f"url(#{name})", f"url(#{own}{name})")
    head, body = text.split(">", 1)
    # Inside a narrow page it may shrink by a quarter, then the page scrolls it.
    width = re.search(r' width="(\d+)', head)
    least = f' style="min-width:{round(0.75 * int(width[1]))}px"' if width else ""
    head = re.sub(r' class="[^"]*"', "", head).replace("<svg", f'<svg class="imprint-chart" role="img"{least}', 1)
    return f"{head}>{_STYLE}{body}"


def caption(path: Path, facts: Mapping[str, Any]) -> str:
    """A caption file (Jinja; paragraphs of plain text) filled with a chart's facts, as HTML paragraphs."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        text = environment.from_string(path.read_text(encoding="utf-8")).render(**facts)
    except (OSError, jinja2.TemplateError) as error:
        raise ImprintError(f"caption {path} cannot be filled in: {error}; it may use {', '.join(facts)}") from error
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return "".join(f"<p>{markupsafe.escape(part)}</p>" for part in paragraphs if part)


def _theme() -> dict[str, Any]:
    text = {"labelColor": INK, "titleColor": INK, "labelFont": FONT, "titleFont": FONT}
    sizes = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    lines = {"domainColor": INK, "tickColor": INK, "gridColor": INK, "gridOpacity": 0.14, "domainOpacity": 0.6}
    heading = {"color": INK, "subtitleColor": INK, "font": FONT, "subtitleFont": FONT, "anchor": "start"}
    return {
        "background": "transparent",
        "padding": {"left": 5, "top": 5, "right": 20, "bottom": 5},
        "font": FONT,
        "axis": {**text, **sizes, **lines, "labelLimit": 260},
        "legend": {**text, **sizes, "symbolSize": 70, "labelLimit": 260},
        "title": {**heading, "fontSize": 14, "subtitleFontSize": 12, "fontWeight": 600, "offset": 8},
        "view": {"stroke": None},
        "text": {"color": INK, "font": FONT},
    }
