"""The tables of the pages in docs/results, from the tables of a finished experiment.

    python tests/result_pages.py RESULTS docs/results/NAME      # writes NAME/*.csv, and prints the page's tables

A page holds these lines as they are printed, so that no figure in a table is typed by hand; a test compares them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from imprint.charts import kept
from imprint.report.numbers import MINUS, interval, number, signed

ANSWERS = (
    *(
        "question",
        "asks",
        "arm",
        "control",
        "eval",
        "metric",
        "kind",
        "margin",
        "verdict",
        "difference",
        "ci_low",
        "ci_high",
    ),
    *("smallest", "n_pairs", "n_missing", "n_seeds", "wins", "losses", "ties"),
)
SUMMARY = (
    *("arm", "eval", "metric", "n_examples", "n_attempted", "n_scored", "n_error", "n_unparsed", "n_unverified"),
    *("n_truncated", "mean", "se", "ci_low", "ci_high"),
)
COMPARISONS = ("arm", "control", "eval", "metric", "difference", "se", "ci_low", "ci_high", "n_pairs", "n_seeds")


def write(results: Path, page: Path) -> None:
    """Write the parts of three tables that the page shows: `answers`, and the primary metrics of `summary` and
    `comparisons`. An experiment with the chart `kept` has a fourth: the shares of gains."""
    page.mkdir(parents=True, exist_ok=True)
    for name, columns in {"answers": ANSWERS, "summary": SUMMARY, "comparisons": COMPARISONS}.items():
        table = pl.read_parquet(results / f"tables/{name}.parquet")
        rows = table if name == "answers" else table.filter(pl.col("primary"))
        rows.select(columns).write_csv(page / f"{name}.csv", float_precision=6)
    if (results / "charts/kept.svg").is_file():
        tables = {name: pl.read_parquet(results / f"tables/{name}.parquet") for name in kept.TABLES}
        summary = pl.read_csv(page / "summary.csv")
        arms = summary["arm"].unique(maintain_order=True).to_list()
        shares = kept.shares(tables, arms, dict.fromkeys(summary["eval"]))
        pl.DataFrame(shares).write_csv(page / "kept.csv", float_precision=6)


def lines(page: Path) -> Iterator[str]:
    """The lines of a page's two tables: its questions and their answers, and the arms' means."""
    yield "| question | difference | interval of all questions together | answer | smallest that could be seen |"
    yield "|---|---|---|---|---|"
    for row in pl.read_csv(page / "answers.csv").iter_rows(named=True):
        asked = f"{row['asks']} (`{row['arm']}` {MINUS} `{row['control']}`, {row['eval']})"
        margin = "" if row["kind"] == "gain" else f" (margin {row['margin']:g})"
        yield (
            f"| {asked} | {signed(row['difference'])} | {interval(row['ci_low'], row['ci_high'])} | "
            f"{row['verdict']}{margin} | {number(row['smallest'])} |"
        )
    yield ""
    summary = pl.read_csv(page / "summary.csv")
    evals = summary.unique(["eval", "metric"], maintain_order=True).sort("eval").select("eval", "metric").rows()
    yield "| arm | " + " | ".join(f"{name}, {metric}" for name, metric in evals) + " |"
    yield "|---|" + "---|" * len(evals)
    for arm in summary["arm"].unique(maintain_order=True):
        cells = []
        for name, _ in evals:
            rows = summary.filter((pl.col("arm") == arm) & (pl.col("eval") == name)).to_dicts()
            cells.append(_mean(rows[0]) if rows else "")
        yield f"| {arm} | " + " | ".join(cells) + " |"


def shares(page: Path) -> Iterator[str]:
    """The lines of a page's table of shares: of the gains of parents that are no compositions themselves."""
    rows = pl.read_csv(page / "kept.csv").filter(~pl.col("parent").is_in(pl.col("arm").implode())).to_dicts()
    columns = list(dict.fromkeys((row["parent"], row["eval"]) for row in rows))
    told = {
        (row["arm"], row["parent"], row["eval"]): f"{row['share']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        for row in rows
    }
    yield "| arm | " + " | ".join(f"of `{parent}`, {name}" for parent, name in columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for arm in dict.fromkeys(row["arm"] for row in rows):
        cells = [told.get((arm, *column), "") for column in columns]
        yield f"| {arm} | " + " | ".join(cells).replace("-", MINUS) + " |"


def _mean(row: dict[str, float]) -> str:
    cut = f", {100 * row['n_truncated'] / row['n_attempted']:.0f}% cut" if row["n_truncated"] else ""
    return f"{number(row['mean'])} ({number(row['ci_low'])} to {number(row['ci_high'])}{cut})"


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
    print("\n".join(lines(Path(sys.argv[2]))))
    if Path(sys.argv[2], "kept.csv").is_file():
        print("\n".join(["", *shares(Path(sys.argv[2]))]))
