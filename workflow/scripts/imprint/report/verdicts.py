"""The questions of an experiment and their answers, in words: for the terminal, the report and the chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imprint.runtime import parquet
from imprint.runtime.errors import shown


def text(results: str) -> str:
    """Every question with its answer, and where the report is; "" before there are answers."""
    path = Path(results, "tables", "answers.parquet")
    if not path.is_file():
        return ""  # snakemake was called for an earlier file
    rows = parquet.read(path, "answers").to_pylist()
    lines = [f"  {row['asks']}\n    {row['eval']}: {sentence(row)}" for row in rows]
    lines = lines or ["  The config asks no question (`questions:`), so there are no verdicts."]
    return shown("\n".join(["", *lines, f"Report: {results}/report.html   Tables: {results}/imprint.duckdb"]))


def sentence(row: Mapping[str, Any]) -> str:
    """The verdict of a row of table `answers`, and its explanation."""
    return f"{row['verdict'].capitalize()}. {explanation(row)}"


def explanation(row: Mapping[str, Any]) -> str:
    """What stands behind a verdict: the difference with its simultaneous interval, n, seeds, the smallest difference
    that would have been found, and what would settle an open question."""
    if row["verdict"] == "not tested":
        return "The check does not show that the treatment was delivered."
    if row["difference"] is None:
        return "No example has a score of both."
    of_arm = f"{row['arm']} {number(row['difference'])} against {row['control']}"
    interval = "" if row["ci_low"] is None else f" [{number(row['ci_low'])}, {number(row['ci_high'])}]"
    kinds = f" values of {row['over']}" if row["over"] else ""
    sentences = [f"{of_arm}{interval} in {row['metric']}, n = {row['n_pairs']}{kinds}{seeds(row)}."]
    if row["scope"] == "weights":
        sentences.append("This is about these weights alone: there is one training run of an arm.")
    if row["margin"] and row["smallest"] is not None:
        sentences.append(f"Margin {row['margin']:g}; from {row['smallest']:.2g} on, a margin could have been shown.")
    elif row["smallest"] is not None:
        sentences.append(f"Differences from {row['smallest']:.2g} on would have been seen.")
    if row["worst_low"] is not None:
        sentences.append(
            f"{row['n_missing']} left out; had all of them gone one way, the difference would lie between "
            f"{number(row['worst_low'])} and {number(row['worst_high'])}."
        )
    if row["seed_sd"]:
        sentences.append(
            f"Its sign holds if training runs spread by at most {row['seed_sd']:.2g} (standard deviation)."
        )
    return " ".join([*sentences, *settled_by(row), *looked(row)])


def seeds(row: Mapping[str, Any]) -> str:
    """The number of seeds, ", 3 seeds"; empty where no arm is fitted."""
    return f", {row['n_seeds']} seed{'s' if row['n_seeds'] > 1 else ''}" if row["n_seeds"] else ""


def looked(row: Mapping[str, Any]) -> list[str]:
    """What the history of looks says: no sentence where the planned data were looked at once."""
    sentences = []
    if not row["may_decide"]:
        sentences.append(
            "The error of 5% was spent when all planned data were looked at, so more data decide nothing: ask in a new "
            "experiment with new seeds, or plan for more with `final_seeds`."
        )
    elif row["share"] < 1:
        early = "too early to judge" if row["ci_low"] is None else "judged by an early boundary"
        sentences.append(f"This is an early look at {100 * row['share']:.0f}% of the planned data, {early}.")
    if row["looks_before"]:
        times = "once" if row["looks_before"] == 1 else f"{row['looks_before']} times"
        sentences.append(f"Fewer data were looked at {times} before, which the interval accounts for.")
    if row["other_versions"]:
        versions = "1 other version" if row["other_versions"] == 1 else f"{row['other_versions']} other versions"
        sentences.append(f"Someone also looked at {versions} of this experiment, which no interval accounts for.")
    return sentences


def settled_by(row: Mapping[str, Any]) -> list[str]:
    """What would settle an open question if the difference stayed as it is: no sentence, or one."""
    if row["verdict"] != "undecided":
        return []
    if row["scope"] == "weights":
        return ["Take three seeds or more to ask about the method."]
    ways = [
        f"{count:,} {what}"
        for count, what in (
            (row["examples_needed"], f"values of {row['over']}" if row["over"] else "examples"),
            (row["seeds_needed"], "seeds"),
        )
        if count
    ]
    return [f"If the difference stays, {' or '.join(ways)} would settle it."] if ways else []


def number(value: float) -> str:
    """A signed number with three decimals."""
    return f"{value:+.3f}"
