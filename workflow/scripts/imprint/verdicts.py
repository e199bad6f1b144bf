"""What a run found, in a few lines for the terminal."""

from __future__ import annotations

from pathlib import Path

from imprint import tables
from imprint.errors import shown


def text(results: str) -> str:
    """The verdict of every comparison of a primary metric, and where the report is."""
    path = Path(results, "tables", "comparisons.parquet")
    if not path.is_file():
        return ""  # a run that was asked for an earlier file, which has no verdicts yet
    rows = tables.read(path, "comparisons").to_pylist()
    lines = []
    for row in rows:
        if row["family"] != "primary":
            continue
        pair = f"{row['arm']} vs {row['control']} on {row['eval']}"
        found = row["verdict"]
        if row["difference"] is not None:
            # Two arms that answered all alike have a difference, but no interval.
            ends = (row["ci_low"], row["ci_high"])
            interval = "no interval" if None in ends else "[{:+.3f}, {:+.3f}]".format(*ends)
            found += f"  {row['difference']:+.3f} {interval}  n={row['n_pairs']}"
        lines.append(f"  {pair}: {found}")
    return shown("\n".join(["", *lines, f"Report: {results}/report.html   Tables: {results}/imprint.duckdb"]))
