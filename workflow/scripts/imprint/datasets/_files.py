"""Reading the files of public sets: CSV with a header, and JSON. Every error names the file and the row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imprint.runtime.errors import ImprintError
from imprint.tables import json_lines


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """("FILE, row N", column -> text without outer spaces) of a CSV file with a header. Raises ImprintError if the file
    cannot be read, or if a row lacks one of `columns` or has it empty. Other columns may be empty or missing."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            table = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImprintError(f"{path} cannot be read as CSV ({error}); delete it and run again") from error
    for number, row in enumerate(table, 1):
        # DictReader puts the cells beyond the header under None.
        texts = {column: (text or "").strip() for column, text in row.items() if column is not None}
        if empty := [column for column in columns if not texts.get(column)]:
            raise ImprintError(f"{path}, row {number}: has no '{empty[0]}'; restore the published file")
        yield f"{path}, row {number}", texts


def json_objects(path: Path, key: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE, object N", object) of a JSON file that holds a list of objects, or an object with this list under `key`.
    Raises ImprintError for any other file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImprintError(f"{path} cannot be read as UTF-8 text ({error}); restore the file") from error
    instead = "a list of objects" if key is None else f"an object whose '{key}' is a list of objects"
    content = json_lines.value(text, str(path), instead)
    if key is not None:
        content = content.get(key) if isinstance(content, dict) else None
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise ImprintError(f"{path}: found {content!r:.80}; write {instead}")
    for number, item in enumerate(content, 1):
        yield f"{path}, object {number}", item
