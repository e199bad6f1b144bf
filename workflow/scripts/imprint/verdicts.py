"""What a run found, in a few lines for the terminal."""

from __future__ import annotations

from pathlib import Path

from imprint import tables


def text(results: str) -> str:
    """The verdict of every comparison of a primary metric, and where the report is."""
    rows = tables.read(Path(results, "tables", "comparisons.parquet"), "comparisons").to_pylist()
    lines = []
    for row in rows:
        if row["family"] != "primary":
            continue
        shown = f"{row['arm']} vs {row['control']} on {row['eval']}"
        if row["difference"] is None:
            lines.append(f"  {shown}: {row['verdict']}")
            continue
        interval = f"{row['difference']:+.3f} [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}]"
        lines.append(f"  {shown}: {row['verdict']}  {interval}  n={row['n_pairs']}")
    return "\n".join(["", *lines, f"Report: {results}/report.html   Tables: {results}/imprint.duckdb"])
