"""The questions of an experiment and their answers, in words: for the terminal and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imprint.runtime import parquet
from imprint.runtime.errors import shown

Writer = Callable[[float], str]
"""How a number is written: `ascii_number` in the terminal, `numbers.signed` in the page."""


def text(results: str) -> str:
    """Every question with its answer, and where the report is; "" before there are answers."""
    path = Path(results, "tables", "answers.parquet")
    if not path.is_file():
        return ""  # snakemake was called for an earlier file
    rows = parquet.read(path, "answers").to_pylist()
    lines = [f"  {row['asks']}\n    {answer(row)}" for row in rows]
    lines = lines or ["  The config asks no question (`questions:`), so there are no verdicts."]
    return shown("\n".join(["", *lines, f"Report: {results}/report.html   Tables: {results}/imprint.duckdb"]))


def answer(row: Mapping[str, Any]) -> str:
    """The verdict and what stands behind it, for the terminal."""
    return f"{row['verdict'].capitalize()}. {explanation(row)}"


def ascii_number(value: float) -> str:
    """A signed number with three decimals, for the terminal."""
    return f"{value:+.3f}"


def explanation(row: Mapping[str, Any]) -> str:
    """What stands behind a verdict, for the terminal: the answer's sentence, and its notes."""
    return " ".join([sentence(row, ascii_number), *notes(row, ascii_number)])


def sentence(row: Mapping[str, Any], written: Writer) -> str:
    """An answer in one sentence: the difference with its simultaneous interval, n, seeds, and the smallest difference
    that would have been seen."""
    if row["verdict"] == "not tested":
        return "The check does not show that the treatment was delivered."
    if row["difference"] is None:
        return f"On {row['eval']}, no example has a score of both {row['arm']} and {row['control']}."
    lower = ", where lower is better" if row["direction"] < 0 else ""
    facts = [f"n = {row['n_pairs']}{kinds(row)}{seeds(row)}"]
    if row["ci_low"] is not None:
        facts.insert(0, f"simultaneous 95% interval {written(row['ci_low'])} to {written(row['ci_high'])}")
    if row["margin"]:
        facts.append(f"margin {row['margin']:g}")
    if row["smallest"] is not None:
        power = (
            "margins from {:.2g} on would have been shown with 80% power"
            if row["margin"]
            else "differences from {:.2g} on would have been seen with 80% power"
        )
        facts.append(power.format(row["smallest"]))
    size = f"{abs(row['difference']):.3f}"
    if row["difference"] == 0:
        compared = "equal to"
    elif float(size) == 0:
        compared = "within 0.0005 of"
    else:
        compared = f"{size} {'higher' if row['difference'] > 0 else 'lower'} than"
    return (
        f"On {row['eval']}, {row['arm']} is {compared} {row['control']} in {row['metric']}{lower} ({'; '.join(facts)})."
    )


def notes(row: Mapping[str, Any], written: Writer) -> list[str]:
    """What a reader must know of an answer beside its sentence: the answer's scope, what was left out, what would
    settle an undecided question, and earlier looks."""
    if row["difference"] is None:
        return []
    remarks = []
    if row["scope"] == "weights":
        remarks.append("This is about these weights alone: an arm has a single training run.")
    if row["seed_sd"]:
        remarks.append(
            "The sign of the difference holds if training runs spread by at most "
            f"{row['seed_sd']:.2g} (standard deviation)."
        )
    if row["worst_low"] is not None:
        remarks.append(
            f"{row['n_missing']} left out; had all of them gone one way, the difference would lie between "
            f"{written(row['worst_low'])} and {written(row['worst_high'])}."
        )
    return [*remarks, *settled_by(row), *looked(row)]


def kinds(row: Mapping[str, Any]) -> str:
    """What n counts if it does not count examples: " values of instruction"; else empty."""
    return f" values of {row['over']}" if row["over"] else ""


def seeds(row: Mapping[str, Any]) -> str:
    """The number of seeds, ", 3 seeds"; empty where no arm is fitted here."""
    return f", {row['n_seeds']} seed{'s' if row['n_seeds'] > 1 else ''}" if row["n_seeds"] else ""


def looked(row: Mapping[str, Any]) -> list[str]:
    """What the history of looks says, in sentences. There are none for the first look at the only version, if it is at
    all planned data."""
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
        looks = "was 1 earlier look" if row["looks_before"] == 1 else f"were {row['looks_before']} earlier looks"
        sentences.append(f"There {looks} at fewer data, which the interval accounts for.")
    if row["other_versions"]:
        others = "1 other version" if row["other_versions"] == 1 else f"{row['other_versions']} other versions"
        sentences.append(f"Answers of {others} of this experiment were looked at; no interval accounts for that.")
    return sentences


def settled_by(row: Mapping[str, Any]) -> list[str]:
    """What would settle an undecided question if the difference stayed as it is: one sentence, or none."""
    if row["verdict"] != "undecided":
        return []
    if row["scope"] == "weights" and row["n_seeds"] == 1:
        return ["Take three seeds or more to ask about the method."]
    ways = [
        f"{count:,} {what}"
        for count, what in ((row["examples_needed"], kinds(row).strip() or "examples"), (row["seeds_needed"], "seeds"))
        if count
    ]
    return [f"If the difference stays, a plan of {' or '.join(ways)} would settle it."] if ways else []
