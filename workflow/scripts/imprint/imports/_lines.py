"""JSON lines as columns, quickly where nothing is odd, and with the line and the reason where something is.

pyarrow parses a block of lines. It takes a quarter of polars' time, and fails where a value is not exactly of its type.
There polars parses the same lines: it also makes text of a number. Where polars fails too, Python parses them, more
slowly: Python reads NaN as null, or says which line is wrong. Where an object has a key twice, polars takes one of the
two values, and Python refuses the line.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.json

from imprint.runtime.errors import ImprintError
from imprint.tables import json_lines

BLOCK = 64 * 2**20
"""Bytes that are parsed at a time, more if a line is longer."""
ARROW_BLOCK = 4 * 2**20
"""Bytes that pyarrow parses at a time; polars parses a block with a longer line."""
LONGEST = 64 * 2**20
"""The most bytes of a line."""
MOST = 64 * 2**30
"""The most bytes of a file."""

Schema = Mapping[str, Any]
"""Field -> polars type. A value of another kind becomes JSON text where the type is String."""
SchemaOf = Callable[[bytes], Schema]
"""The schema of a block of lines, which may depend on the block."""


def first(path: Path) -> dict[str, Any]:
    """The first line that is not empty. Raises ImprintError for a file without one."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                return next(_parsed(line[: LONGEST + 1], str(path), number))
    raise ImprintError(f"{path}: is empty; write the path of a log with samples")


def frames(path: Path, schema_of: SchemaOf) -> Iterator[tuple[int, pl.DataFrame]]:
    """(number of the first line, fields of the schema) of each block of lines. Empty lines have no row. Raises
    ImprintError for lines that are not JSON objects with values of these types, and for files that are too large."""
    if (size := path.stat().st_size) > MOST:
        raise ImprintError(f"{path}: has {size:,} bytes; write logs of at most {MOST:,}, such as one a task")
    number = 1
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            block += file.readline(LONGEST + 1)
            if not block.endswith(b"\n") and file.read(1):
                raise ImprintError(f"{path}: a line has more than {LONGEST:,} bytes; write one sample a line")
            yield number, _frame(block, schema_of(block), str(path), number)
            number += block.count(b"\n")


def _frame(block: bytes, schema: Schema, name: str, number: int) -> pl.DataFrame:
    # A lone surrogate would be read as another character, and pyarrow takes any bytes for text.
    if b"\\ud" not in block and b"\\uD" not in block and _is_text(block):
        for read in (_exactly_typed, _loosely_typed):
            try:
                return read(block, schema)
            except (pa.ArrowInvalid, pl.exceptions.PolarsError):
                continue  # in the end Python parses the lines below, and reads NaN or names the wrong line
    rows = []
    for line, row in enumerate(_parsed(block, name, number)):
        try:
            rows.append({key: _cast(row.get(key), kind) for key, kind in schema.items()})
        except TypeError as error:
            raise ImprintError(f"{name}, line {_number(block, number, line)}: {error}") from None
    return pl.DataFrame(rows, schema=dict(schema))


def _is_text(block: bytes) -> bool:
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _exactly_typed(block: bytes, schema: Schema) -> pl.DataFrame:
    fields = pa.schema([(name, _arrow(kind)) for name, kind in schema.items()])
    parse = pyarrow.json.ParseOptions(explicit_schema=fields, unexpected_field_behavior="ignore")
    read = pyarrow.json.ReadOptions(block_size=ARROW_BLOCK, use_threads=False)
    table = pyarrow.json.read_json(io.BytesIO(block), read_options=read, parse_options=parse)
    frame = pl.from_arrow(table.select(fields.names))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _loosely_typed(block: bytes, schema: Schema) -> pl.DataFrame:
    return pl.read_ndjson(io.BytesIO(block), schema=dict(schema))


def _arrow(kind: Any) -> pa.DataType:
    """The type of pyarrow for a type of polars."""
    if isinstance(kind, pl.Struct):
        return pa.struct([(field.name, _arrow(field.dtype)) for field in kind.fields])
    if isinstance(kind, pl.List):
        return pa.list_(_arrow(kind.inner))
    return {pl.String: pa.string(), pl.Boolean: pa.bool_(), pl.Int64: pa.int64(), pl.Float64: pa.float64()}[kind]


def _parsed(block: bytes, name: str, number: int) -> Iterator[dict[str, Any]]:
    try:
        text = block.decode()
    except UnicodeDecodeError as error:
        line = number + block.count(b"\n", 0, error.start)
        raise ImprintError(f"{name}, line {line}: is not UTF-8; save the log as UTF-8") from None
    for _, row in json_lines.rows(text.split("\n"), name, number, constant=lambda _: None):
        yield row


def _number(block: bytes, number: int, row: int) -> int:
    """The number of the line that holds a row. `number`: that of the block's first line; `row`: counted from 0, without
    empty lines."""
    row_lines = (line for line, text in enumerate(block.split(b"\n"), number) if text.strip())
    return next(line for place, line in enumerate(row_lines) if place == row)


def _cast(value: Any, kind: Any) -> Any:
    """The value as a polars type has it. Raises TypeError for a value of another kind."""
    if value is None:
        return None
    if kind == pl.String:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(kind, pl.Struct):
        parts = value if isinstance(value, dict) else _wrong(value, "an object")
        return {field.name: _cast(parts.get(field.name), field.dtype) for field in kind.fields}
    if isinstance(kind, pl.List):
        return [_cast(part, kind.inner) for part in (value if isinstance(value, list) else _wrong(value, "a list"))]
    if kind == pl.Boolean:
        return bool(value) if value in (False, True) else _wrong(value, "true or false")
    if kind == pl.Int64:
        is_int64 = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        return value if is_int64 else _wrong(value, "a whole number")
    return float(value) if isinstance(value, int | float) and abs(value) < 1e308 else _wrong(value, "a number")


def _wrong(value: Any, expected: str) -> Any:
    raise TypeError(f"found {value!r:.80}; write {expected}")
