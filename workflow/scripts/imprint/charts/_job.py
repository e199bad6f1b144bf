"""The plot job: draws one chart and fills in its caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imprint.charts import Eval, Evals
from imprint.runtime import parquet, plugins
from imprint.runtime.plugins import Strict

if TYPE_CHECKING:
    import polars as pl


class Spec(Strict):
    """A chart, the files of the tables that it reads, and the arms and evals in the config's order."""

    chart: str
    tables: dict[str, list[str]]
    arms: list[str]
    evals: list[tuple[str, Eval]]


def run(spec: Spec, caption: Path, svg_out: Path, caption_out: Path) -> None:
    """Write the picture as SVG, an empty file if there is nothing to show, and the caption as HTML."""
    import polars as pl

    tables = {
        name: pl.DataFrame(pl.from_arrow(parquet.concat([Path(path) for path in paths], name)))
        for name, paths in spec.tables.items()
    }
    svg, text = drawn(spec.chart, tables, spec.arms, dict(spec.evals), caption)
    svg_out.write_text(svg or "", encoding="utf-8")
    caption_out.write_text(text, encoding="utf-8")


def drawn(
    chart: str, tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals, caption: Path
) -> tuple[str | None, str]:
    """A chart as SVG, None if there is nothing to show, and its caption as HTML, from the file `caption`."""
    from imprint.charts import _drawing as drawing

    module = plugins.load("charts", chart)
    picture = module.chart(tables, arms, evals)
    return None if picture is None else drawing.svg(picture), drawing.caption(caption, module.facts(tables))
