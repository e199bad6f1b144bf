"""The results of an experiment in a few lines for the terminal."""

from __future__ import annotations

from pathlib import Path

from imprint.runtime import parquet
from imprint.runtime.errors import shown


def text(results: str) -> str:
    """The verdicts on the primary metrics, a line each, and where the report is; "" before there are comparisons."""
    path = Path(results, "tables", "comparisons.parquet")
    if not path.is_file():
        return ""  # snakemake was called for an earlier file
    rows = parquet.read(path, "comparisons").to_pylist()
    lines = []
    for row in rows:
        if row["family"] != "primary":
            continue
        pair = f"{row['arm']} vs {row['control']} on {row['eval']}"
        verdict = row["verdict"]
        if row["difference"] is not None:
            # Two arms with equal values on all examples have a difference, but no interval.
            ends = (row["ci_low"], row["ci_high"])
            interval = "no interval" if None in ends else "[{:+.3f}, {:+.3f}]".format(*ends)
            verdict += f"  {row['difference']:+.3f} {interval}  n={row['n_pairs']}"
        lines.append(f"  {pair}: {verdict}")
    return shown("\n".join(["", *lines, f"Report: {results}/report.html   Tables: {results}/imprint.duckdb"]))
