"""Tables to copy: what a cell says stays text in Markdown, in LaTeX and in a spreadsheet."""

from __future__ import annotations

import csv
import io
import random
import re

from imprint.report import copies
from imprint.report.copies import Grid

HOSTILE = 'a|b & 50% of $x_1$ \\input{/etc/passwd} `c` <b> # ~ ^ \n\r{"}'
GRID = Grid(["arm", "mean"], [[HOSTILE, -0.0505], ["none", None], ["few", 3]])
ALPHABET = "ab =+-@|&%$#_{}\\~^<>\"`*[]\n\r,;'\t\N{MINUS SIGN}"


def texts() -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices(ALPHABET, k=draw.randrange(12))) for _ in range(500)]


def test_numbers_have_three_decimals_and_nothing_is_a_dash() -> None:
    assert copies.markdown(GRID).splitlines()[3:] == ["| none | \N{EN DASH} |", "| few | 3 |"]
    assert "\N{MINUS SIGN}0.051" in copies.markdown(GRID) or "\N{MINUS SIGN}0.050" in copies.markdown(GRID)
    lines = copies.latex(GRID).splitlines()
    assert lines[0] == r"\begin{tabular}{lr}" and lines[-1] == r"\end{tabular}" and r"none & -- \\" in lines


def test_a_cell_of_markdown_cannot_leave_its_row() -> None:
    for text in texts():
        row = copies.markdown(Grid(["x"], [[text]])).split("\n")[2]
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 2, text
        assert copies.markdown(Grid(["x"], [[text]])).count("\n") == 3 and "\r" not in row


def test_a_cell_of_latex_has_no_command_of_its_own() -> None:
    ours = r"\\[&%$#_{}]|\\text[a-z]+\{\}|\$-\$"
    for text in [HOSTILE, *texts()]:
        row = copies.latex(Grid(["x"], [[text]])).splitlines()[4].removesuffix(r" \\")
        assert not re.search(r"[\\&%$#_{}~^<>|\"]", re.sub(ours, "", row)), text


def test_a_spreadsheet_reads_back_every_text_and_takes_none_for_a_formula() -> None:
    grid = Grid(["x", "y"], [[text, -0.5] for text in texts()])
    read = list(csv.reader(io.StringIO(copies.comma_separated(grid), newline="")))[1:]
    assert [row[0].removeprefix("'") for row in read] == [text.removeprefix("'") for text in texts()]
    assert not [row for row in read if row[0].startswith(copies.FORMULA)]
    assert {row[1] for row in read} == {"-0.5"}, "a number stays a number"
