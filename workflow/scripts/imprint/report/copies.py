"""Tables of the page as Markdown, LaTeX and CSV, for readers who copy them into a paper, an issue or a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from imprint.report.numbers import DASH, MINUS

_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "''",
        MINUS: "$-$",
        DASH: "--",
        "\n": " ",
        "\r": " ",
    }
)
_MARKDOWN = str.maketrans(
    {
        **{character: f"\\{character}" for character in "\\`*_{}[]<>#|~&"},
        "\n": " ",
        "\r": " ",
    }
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a text that begins with one of these for a formula."""

Cell = str | int | float | None


class Grid(NamedTuple):
    """A table to copy. A cell is a text, a number, or None where there is no value."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def forms(grid: Grid) -> dict[str, str]:
    """The table in each form, by the form's name on its button."""
    return {"Markdown": markdown(grid), "LaTeX": latex(grid), "CSV": comma_separated(grid)}


def markdown(grid: Grid) -> str:
    """A table of GitHub-flavoured Markdown; nothing in a cell is taken for markup."""

    def line(cells: Sequence[Cell]) -> str:
        return f"| {' | '.join(_shown(cell).translate(_MARKDOWN) for cell in cells)} |"

    return "\n".join([line(grid.header), f"|{' --- |' * len(grid.header)}", *map(line, grid.rows)]) + "\n"


def latex(grid: Grid) -> str:
    """A `tabular` with booktabs' rules; nothing in a cell is taken for a command."""

    def line(cells: Sequence[Cell]) -> str:
        return " & ".join(_shown(cell).translate(_LATEX) for cell in cells) + r" \\"

    numeric = [all(isinstance(row[i], int | float | None) for row in grid.rows) for i in range(len(grid.header))]
    columns = "".join("r" if is_numeric else "l" for is_numeric in numeric)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(grid.header), r"\midrule", *map(line, grid.rows)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def comma_separated(grid: Grid) -> str:
    """CSV (RFC 4180) with full numbers. A text that a spreadsheet would take for a formula gets an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(map(_inert, grid.header))
    writer.writerows([map(_inert, row) for row in grid.rows])
    return out.getvalue()


def _shown(cell: Cell) -> str:
    if cell is None:
        return DASH
    return f"{cell:.3f}".replace("-", MINUS) if isinstance(cell, float) else str(cell)


def _inert(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
