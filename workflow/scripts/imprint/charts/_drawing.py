"""Drawing: the theme, axes and panels of all charts, and SVG that is legible on light and dark pages.

A colour has one meaning in all charts. Blue is better, orange-red is worse, grey is undecided (`OUTCOMES`). `COLOURS`
are arms. Purple and green are the signs of coefficients (`NEGATIVE`, `POSITIVE`). Cividis is a share from 0 to 1.

Colour-blind readers can tell outcomes apart, whose colours are Okabe and Ito's ("Color Universal Design", 2008), and
which differ by shape as well. Arms differ by shape too, and have their names beside them. Text and axes are drawn in
`currentColor`.

A mark may have a description with its exact numbers (an `aria-label` in the SVG), and an address within the page. The
page's script shows the description when a reader points at the mark or moves the focus to it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import markupsafe
import polars as pl

from imprint.charts import Evals
from imprint.runtime.errors import ImprintError

COLOURS = ("#009E73", "#E69F00", "#CC79A7", "#8C6BD8", "#999933", "#A5673F", "#3FB8AF", "#F0E442")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
BETTER, WORSE, UNDECIDED = "#0072B2", "#D55E00", "#999999"
OUTCOMES = {"good": (BETTER, "triangle-up"), "open": (UNDECIDED, "circle"), "bad": (WORSE, "triangle-down")}
"""Outcome (`statistics.questions.outcome` and `side`) -> its colour and its shape."""
NEGATIVE, ZERO, POSITIVE = "#7B3294", "#DDDDDD", "#1B7837"

INK = "#010203"  # `svg` replaces this colour, which nothing else has, by currentColor
FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif"
WIDTH = 460  # of the plotting area, in pixels
ROW = 24  # height of one arm or pair
CELL_WIDTH, CELL_HEIGHT = 13, 17  # least width and height of a heat map's cell
LETTER = 7.6  # width in pixels of a label's letter in the widest usual font

_STYLE = (
    "<style>.imprint-chart{color:#1b1f24;background:transparent}.imprint-chart a{color:inherit}"
    "@media (prefers-color-scheme:dark){.imprint-chart{color:#e6e8eb}}</style>"
)


def arm_colour(arms: Sequence[str]) -> dict[str, alt.Scale]:
    """Scales `color` and `shape` of the arms. Eight colours and seven shapes tell 56 arms apart."""
    numbers = range(len(arms))
    return {
        "color": alt.Scale(domain=list(arms), range=[COLOURS[i % len(COLOURS)] for i in numbers]),
        "shape": alt.Scale(domain=list(arms), range=[SHAPES[i % len(SHAPES)] for i in numbers]),
    }


def outcome_colour() -> dict[str, alt.Scale]:
    """Scales `color` and `shape` of outcomes."""
    colours, shapes = zip(*OUTCOMES.values(), strict=True)
    return {
        "color": alt.Scale(domain=list(OUTCOMES), range=list(colours)),
        "shape": alt.Scale(domain=list(OUTCOMES), range=list(shapes)),
    }


def told() -> dict[str, str]:
    """Channels of a mark whose data have a description in `told` and an address within the page in `address`."""
    return {"description": "told:N", "href": "address:N"}


def zero_line() -> Any:
    """A dashed line at x = 0."""
    rule = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=INK, strokeDash=[3, 3], aria=False)
    return rule.encode(x=values_axis("zero"), opacity=alt.value(0.7))


def dots(rows: list[dict[str, Any]], y: alt.Y, colour: Any, **scale: Any) -> Any:
    """Small dots at `value`, for single training runs; each of `rows` says its numbers in `told`."""
    base = alt.Chart(alt.InlineData(values=rows)).mark_point(filled=True, size=14, opacity=0.9, yOffset=8)
    return base.encode(y=y, x=values_axis("value", **scale), color=colour, description="told:N")


def stack(panels: Sequence[Any]) -> Any:
    """Panels below one another, each with its own axes."""
    return alt.vconcat(*panels, spacing=18).resolve_scale(x="independent", y="independent")


def title(text: str, note: str = "") -> alt.TitleParams:
    """A panel's title with a smaller note under it."""
    return alt.TitleParams(text=text, subtitle=[note] if note else [])


def eval_title(evals: Evals, name: str, note: str) -> alt.TitleParams:
    """A panel's title: an eval's name, and whether some arm is trained on its kinds of rows."""
    description = evals[name].description
    return title(f"{name}: {description}" if description else name, note)


def rows_axis(labels: Sequence[str], scale_to: Sequence[str] | None = None) -> dict[str, Any]:
    """Keywords of a `y` channel with one row for each label, in this order. The room for labels is computed from the
    longest of `scale_to` (default: `labels`), because a reader's font may be wider than the one of the layout."""
    room = LETTER * max(map(len, scale_to or labels))
    axis = alt.Axis(ticks=False, domain=False, labelPadding=8, minExtent=room, labelLimit=room)
    return {"title": None, "sort": None, "scale": alt.Scale(domain=list(labels)), "axis": axis}


def values_axis(field: str, **scale: Any) -> alt.X:
    """A quantitative `x` channel with few ticks."""
    axis = alt.Axis(tickCount=5, labelFlush=False)
    return alt.X(f"{field}:Q", title=None, axis=axis, scale=alt.Scale(nice=5, **scale))


def depth_map(rows: pl.DataFrame, name: str, what: str, largest: float) -> Any:
    """A heat map of the model: rows are kinds of module, columns are layers; modules outside the layers are in the
    first column, "none". `rows` has the columns layer, kind and value. Colours run from -largest over 0 to largest."""
    columns = ["none", *map(str, sorted(rows["layer"].drop_nulls().unique()))]
    kinds = rows["kind"].unique(maintain_order=True).to_list()
    values = [
        {"layer": "none" if layer is None else str(layer), "kind": kind, "value": value}
        for layer, kind, value in rows.select("layer", "kind", "value").iter_rows()
    ]
    axis = alt.Axis(ticks=False, domain=False, labelAngle=0, labelOverlap="parity", title="layer")
    # With all kinds of colour vision, purple and green differ, and both differ from grey, which is zero.
    ends = [NEGATIVE, ZERO, POSITIVE]
    scale = alt.Scale(domain=[-largest, 0, largest], range=ends, interpolate="rgb", clamp=True)
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
            title=title(name, f"{what}: purple {-largest:.2g}, grey 0, green {largest:.2g}"),
        )
    )


def better_is(direction: int) -> str:
    """A metric's direction in words."""
    return {1: "higher is better", -1: "lower is better"}.get(direction, "descriptive")


def svg(chart: Any) -> str:
    """The chart as SVG text, with a transparent ground, and text and axes in currentColor. Its ids have a prefix of
    their own, so that one page can hold several charts. Equal charts give equal bytes."""
    import vl_convert

    text = vl_convert.vegalite_to_svg(chart.configure(**_theme()).to_json(indent=None), vl_version="6.4")
    text = re.sub(INK + r"|rgb\(1, ?2, ?3\)", "currentColor", text)
    prefix = "c" + hashlib.sha256(text.encode()).hexdigest()[:8] + "-"
    for name in sorted(set(re.findall(r'\bid="([^"]+)"', text)), key=len, reverse=True):
        text = re.sub(rf'id="{re.escape(name)}"', f'id="{prefix}{name}"', text)
        text = text.replace(f"url(#{name})", f"url(#{prefix}{name})")
    # The converter writes addresses within the page as addresses of another site.
    text = re.sub(r'xlink:href="[^"#]*#', 'href="#', text)
    head, body = text.split(">", 1)
    # On a narrow page the chart shrinks by up to a quarter; below that, the page scrolls it.
    width = re.search(r' width="(\d+)', head)
    least = f' style="min-width:{round(0.75 * int(width[1]))}px"' if width else ""
    head = re.sub(r' class="[^"]*"', "", head).replace("<svg", f'<svg class="imprint-chart" role="group"{least}', 1)
    return f"{head}>{_STYLE}{body}"


def caption(path: Path, facts: Mapping[str, Any]) -> str:
    """A caption file (Jinja; paragraphs of plain text) with a chart's facts filled in, as HTML paragraphs. Raises
    ImprintError if the file cannot be filled in."""
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
