"""A table in docs/ whose rows the tests write after they have seen what they say."""

from __future__ import annotations

import ast
import fcntl
from pathlib import Path
from typing import NamedTuple


class DocTable(NamedTuple):
    """The table at the end of a document: all that stands before its first row is written by hand."""

    path: Path

    def seen(self, *cells: str) -> None:
        """Put a row into the table, in the place of the one with the same first cell; rows are sorted."""
        with self.path.open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # tests run in two processes
            before = file.read()
            rows = self.rows(before) | {cells[0]: _line(cells)}
            head, rule, _ = before.rpartition("|---|\n")
            text = head + rule + "".join(f"{row}\n" for row in sorted(rows.values()))
            if text != before:
                file.seek(0)
                file.write(text)
                file.truncate()

    def rows(self, text: str | None = None) -> dict[str, str]:
        """The rows of the table, by their first cell."""
        text = self.path.read_text(encoding="utf-8") if text is None else text
        lines = text.rpartition("|---|\n")[2].splitlines()
        return {line[2:].split(" | ")[0]: line for line in lines}

    def written(self, folder: Path, call: str) -> dict[str, str]:
        """The rows that the tests of a folder write by `call("...", ...)`, read from their code."""
        rows = {}
        for path in sorted(folder.glob("test_*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == call:
                    cells = [str(ast.literal_eval(argument)) for argument in node.args]
                    rows[cells[0]] = _line(cells)
        return rows


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"
