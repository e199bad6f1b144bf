import json
from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    import polars as pl

    from imprint import charts, plugins, tables

    spec = json.loads(snakemake.params.spec)
    read = {
        name: pl.from_arrow(tables.concat([Path(p) for p in ([paths] if isinstance(paths, str) else paths)], name))
        for name, paths in spec["tables"].items()
    }
    module = plugins.load("charts", spec["chart"])
    evals = {name: charts.Distribution(told, held_out) for name, told, held_out in spec["evals"]}
    chart = module.chart(read, spec["arms"], evals)
    caption = charts.caption(Path(snakemake.input.caption), module.facts(read))
    Path(snakemake.output.svg).write_text(charts.svg(chart) if chart is not None else "", encoding="utf-8")
    Path(snakemake.output.caption).write_text(caption, encoding="utf-8")
