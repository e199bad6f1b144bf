"""The plot job: draws one chart and fills in its caption."""

from __future__ import annotations

from pathlib import Path

from imprint.charts import Eval
from imprint.runtime import parquet, plugins
from imprint.runtime.plugins import Strict


class Spec(Strict):
    """A chart, the files of the tables that it reads, and the arms and evals in the config's order."""

    chart: str
    tables: dict[str, list[str]]
    arms: list[str]
    evals: list[tuple[str, Eval]]


def run(spec: Spec, caption: Path, svg_out: Path, caption_out: Path) -> None:
    """Write the picture as SVG, an empty file if there is nothing to show, and the caption as HTML."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    tables = {
        name: pl.DataFrame(pl.from_arrow(parquet.concat([Path(path) for path in paths], name)))
        for name, paths in spec.tables.items()
    }
    module = plugins.load("charts", spec.chart)
    chart = module.chart(tables, spec.arms, dict(spec.evals))
    text = drawing.caption(caption, module.facts(tables))
    svg_out.write_text(drawing.svg(chart) if chart is not None else "", encoding="utf-8")
    caption_out.write_text(text, encoding="utf-8")
