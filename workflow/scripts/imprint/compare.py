"""`python -m imprint.compare A B`: does B beat A? It needs no config, and reads logs of lm-eval, of Inspect, and
tables.

A and B are files or folders of logs; a folder may hold one log for each eval. Several training runs of one side are
written with commas between them, `B1,B2,B3`. There is one question for each eval that both sides have, about its first
metric, and the answers of all evals hold together.

    $ python -m imprint.compare results/base results/tuned
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.logs import command
from imprint.report import verdicts
from imprint.runtime.errors import ImprintError, shown

HEADINGS = ("eval", "metric", "A", "B", "B - A", "interval", "n", "verdict")


def main(arguments: list[str] | None = None) -> None:
    """Print the answers, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m imprint.compare", description="Does B beat A?")
    parser.add_argument("a", metavar="A", help="a log, a folder of logs, or several with commas between them")
    parser.add_argument("b", metavar="B", help="the same, for the other side")
    command.add_fields(parser)
    parser.add_argument("--report", type=Path, default=Path("compare.html"), help="where to write the page")
    parser.add_argument("--force", action="store_true", help="replace a file that is no report of this command")
    options = parser.parse_args(arguments)
    try:
        control, arm, verdict = command.compared(options)
        from imprint.logs import page

        page.write(options.report, verdict, control, arm, options.force)
        answers, means = verdict.tables["answers"].to_dicts(), _means(verdict.tables["summary"].to_dicts())
        print(shown(f"A is {control.name}, B is {arm.name}. {page.scope(control, arm)}\n"))
        print(shown("\n".join(table(answers, means))))
        print(shown("\n".join(("", *map(verdicts.answer, answers)))))
        if verdict.notes:
            print(shown("\n".join(("\nLeft out:", *(f"  {note}" for note in verdict.notes)))))
        print(shown(f"\nReport: {options.report}"))
    except (ImprintError, OSError) as error:
        sys.exit(f"imprint.compare: {shown(error)}")


def _means(summary: list[dict[str, Any]]) -> dict[tuple[str, str, str], float | None]:
    return {(row["arm"], row["eval"], row["metric"]): row["mean"] for row in summary}


def table(answers: list[dict[str, Any]], means: dict[tuple[str, str, str], float | None]) -> Iterator[str]:
    """The answers as lines of a table for the terminal."""
    cells = [HEADINGS, *(_cells(row, means) for row in answers)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cells(row: dict[str, Any], means: dict[tuple[str, str, str], float | None]) -> tuple[str, ...]:
    side_means = [means[row[side], row["eval"], row["metric"]] for side in ("control", "arm")]
    difference, low, high = row["difference"], row["ci_low"], row["ci_high"]
    return (
        row["eval"],
        row["metric"],
        *("-" if mean is None else f"{mean:.3f}" for mean in side_means),
        "-" if difference is None else verdicts.ascii_number(difference),
        "-" if low is None else f"[{verdicts.ascii_number(low)}, {verdicts.ascii_number(high)}]",
        f"{row['n_pairs']:,}",
        row["verdict"],
    )


if __name__ == "__main__":
    main()
