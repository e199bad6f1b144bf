"""Reading tables that people have: Parquet, CSV, TSV, JSON lines and JSON arrays; the text forms may be gzipped. Every
error names the file, and the row or line where one is at fault.

A column is named as in the file. `choices.text` names the part `text` of the objects in the column `choices`, unless a
column has this whole name.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from imprint.runtime.errors import ImprintError
from imprint.tables import json_lines

LONGEST_CELL = 2**26  # characters of a cell of CSV; the csv module's own limit, 131,072, is less than a long document
FORMS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
PACKED = tuple(f"{form}.gz" for form in FORMS[1:])

Record = tuple[str, dict[str, Any]]
"""("FILE, row N" or "FILE, line N", column -> value)."""


def records(path: Path, columns: Collection[str]) -> Iterator[Record]:
    """The rows of a table, with the values of `columns`; null where a row of JSON lacks one. Raises ImprintError for a
    file that cannot be read or that has no such column."""
    form = next((form for form in (*PACKED, *FORMS) if path.name.lower().endswith(form)), None)
    if form is None:
        raise ImprintError(f"{path}: '{path.suffix}' is no form of table; write one of: {', '.join(FORMS)}")
    try:
        if form == ".parquet":
            yield from _parquet(path, columns)
        else:
            with _opened(path, form.endswith(".gz")) as file:
                if form.startswith((".csv", ".tsv")):
                    yield from _separated(path, file, columns, "\t" if form.startswith(".tsv") else ",")
                else:
                    yield from _json(path, file, columns)
    except UnicodeDecodeError as error:
        raise ImprintError(f"{path}: holds text that is not UTF-8 ({error}); save the file as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ImprintError(f"{path}: cannot be read ({error}); restore the file") from None


def _opened(path: Path, packed: bool) -> IO[str]:
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _parquet(path: Path, columns: Collection[str]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            places = _places(path, file.schema_arrow.names, columns)
            tops = list(dict.fromkeys(top for top, *_ in places.values()))
            batches = file.iter_batches(columns=tops)
            rows = (row for batch in batches for row in batch.to_pylist(maps_as_pydicts="strict"))
            for number, row in enumerate(rows, 1):
                yield f"{path}, row {number}", _values(row, places)
    except (pa.ArrowException, pa.ArrowInvalid) as error:
        raise ImprintError(f"{path}: is not a readable Parquet file ({error}); restore the file") from None


def _separated(path: Path, file: IO[str], columns: Collection[str], separator: str) -> Iterator[Record]:
    """The rows of a file with a header. A cell in double quotes may hold separators and line breaks."""
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(file, delimiter=separator, strict=True)
    try:
        header = next(reader, [])
        if repeated := [name for place, name in enumerate(header) if name in header[:place]]:
            raise ImprintError(f"{path}: the column '{repeated[0]}' is there twice; rename one")
        places = _places(path, header, columns)
        for number, cells in enumerate((cells for cells in reader if cells), 1):
            if len(cells) != len(header):
                raise ImprintError(
                    f"{path}, row {number}: has {len(cells)} cells under {len(header)} column names; put cells that "
                    "hold separators or quotes in double quotes"
                )
            yield f"{path}, row {number}", _values(dict(zip(header, cells, strict=True)), places)
    except csv.Error as error:
        raise ImprintError(f"{path}, line {reader.line_num}: not a line of such a table ({error}); mend it") from None


def _json(path: Path, file: IO[str], columns: Collection[str]) -> Iterator[Record]:
    """The objects of a JSON array or of JSON lines. The columns are the keys of all objects together."""
    text = file.read()
    is_array = text.lstrip()[:1] == "["
    rows = list(json_lines.array(text, str(path)) if is_array else json_lines.rows(text.split("\n"), str(path)))
    places = _places(path, list(dict.fromkeys(key for _, row in rows for key in row)), columns)
    for number, row in rows:
        yield f"{path}, line {number}", _values(row, places)


def _places(path: Path, names: Sequence[str], columns: Collection[str]) -> dict[str, list[str]]:
    """Column -> its name in the file, and the names of parts below it. Raises ImprintError for a column that the file
    does not have."""
    places = {}
    for column in columns:
        whole = [column] if column in names else column.split(".")
        if whole[0] not in names:
            close = difflib.get_close_matches(column, names, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise ImprintError(f"{path}: has no column '{column}'; {hint}it has: {', '.join(names) or '(none)'}")
        places[column] = whole
    return places


def _values(row: dict[str, Any], places: dict[str, list[str]]) -> dict[str, Any]:
    return {column: _part(row.get(top), parts) for column, (top, *parts) in places.items()}


def _part(value: Any, names: list[str]) -> Any:
    """The part of nested objects that the names lead to; None where there is no such part."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def listed(value: Any, where: str) -> Any:
    """The list that a text holds as JSON, as cells of CSV do; any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        return json_lines.value(value, where, 'a list in JSON, such as ["a", "b"]')
    return value


def in_json(value: Any) -> str:
    """A value for a message: short, and without the types of Python."""
    return f"{json.dumps(value, ensure_ascii=False, default=str):.80}"
