import json
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from imprint import runtime

with runtime.job(snakemake):
    import polars as pl

    from imprint import report, tables
    from imprint.identity import atomic

    spec = json.loads(snakemake.params.spec)
    names = [name for name in dict(snakemake.input.items()) if name in tables.SCHEMAS]
    files = {name: snakemake.input[name] for name in names}
    files = {name: [value] if isinstance(value, str) else value for name, value in files.items()}
    frames = {name: pl.from_arrow(tables.concat([Path(p) for p in paths], name)) for name, paths in files.items()}
    made = {
        name: (rows.height, rows["source_sha256"][0])
        for (name,), rows in frames["datasets"].partition_by("dataset", as_dict=True).items()
    }
    for dataset in spec["datasets"]:
        dataset["rows"], dataset["sha256"] = made.get(dataset["name"], (None, None))
    charts = {}
    for svg, caption in zip(snakemake.input.charts, snakemake.input.captions, strict=True):
        charts[Path(svg).stem.replace("_", " ")] = (
            Path(svg).read_text(encoding="utf-8") or None,
            Path(caption).read_text(encoding="utf-8"),
        )
    commit = ""
    with suppress(OSError):  # git need not be there
        asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, encoding="utf-8", check=False)
        commit = asked.stdout.strip()
    packages = ("snakemake", "torch", "transformers", "trl", "peft", "polars", "duckdb")
    settings = {**spec, "versions": {name: version(name) for name in packages}, "commit": commit or None}
    with atomic(Path(snakemake.output[0])) as temporary:
        text = report.render(Path(snakemake.input.template), frames, charts, settings)
        temporary.write_text(text, encoding="utf-8")
