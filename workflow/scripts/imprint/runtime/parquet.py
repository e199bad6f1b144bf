"""Reading and writing the Parquet files of the tables in `schemas`: every file is checked, and none is half written."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import atomic
from imprint.runtime.schemas import SCHEMAS

OF_A_RUN = ("generations", "judgements", "scores", "scored_texts")
"""Tables with a file for each arm, seed and eval."""


def write(path: Path, name: str, rows: Iterable[dict[str, Any]] | pa.Table) -> None:
    """Write rows (dicts or a table) with the schema `name` to a Parquet file, atomically. A table that lacks a column
    raises KeyError; in a dict a missing column is null."""
    schema = SCHEMAS[name]
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    table = table.select(schema.names).cast(schema)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


KEYS = frozenset(
    ("dataset", "example_id", "messages", "reference", "fields", "strata", "cluster", "arm", "seed", "sample", "metric")
)
"""Columns that no row of any table leaves empty."""


def read(path: Path, name: str, columns: Collection[str] = (), coded: bool = False) -> pa.Table:
    """Read a Parquet file with the schema `name`, or these columns of it. With `coded`, texts are arrays of
    dictionaries, as the file has them: they take a fraction of the memory, and of the time. Raises ImprintError with
    the file's name where it is broken, has another schema, lacks a value of `KEYS`, or holds rows of another run than
    the one that its path names, as far as these columns show it."""
    schema = _schema(name, columns, coded)
    texts = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    try:
        with _opened(path, texts) as file:
            if file.schema_arrow.names != SCHEMAS[name].names:
                raise ImprintError(
                    f"{path} has the columns {', '.join(file.schema_arrow.names)}, but a '{name}' table has "
                    f"{', '.join(SCHEMAS[name].names)}; delete it and run again"
                )
            table = file.read(schema.names, use_threads=False)  # starting threads takes longer than reading a run
    except (OSError, pa.ArrowException) as error:
        raise ImprintError(f"{path} is not a readable Parquet file ({error}); delete it and run again") from error
    checked = []
    for field in schema:
        try:
            checked.append(table[field.name].cast(field.type))
            checked[-1].validate(full=True)  # texts are UTF-8
        except (ValueError, pa.ArrowException) as error:
            raise not_as_made(
                path,
                f"the column '{field.name}' is not {SCHEMAS[name].field(field.name).type}, as in every '{name}' table "
                f"({error})",
            ) from error
        if field.name in KEYS and checked[-1].null_count:
            raise not_as_made(path, f"the column '{field.name}' is empty in {checked[-1].null_count} rows")
    table = pa.Table.from_arrays(checked, schema=schema)
    if name in OF_A_RUN and re.fullmatch(r"seed\d+", path.parent.name):
        _check_run(path, table)
    return table


def _opened(path: Path, texts: list[str]) -> pq.ParquetFile:
    """The file, whose `texts` are read as dictionaries if it has all these columns. Else its columns are refused
    later."""
    try:
        return pq.ParquetFile(path, read_dictionary=texts)
    except KeyError:
        return pq.ParquetFile(path)


def _schema(name: str, columns: Collection[str], coded: bool) -> pa.Schema:
    """The schema of a table, or of these columns of it."""
    fields = [field for field in SCHEMAS[name] if not columns or field.name in columns]
    code = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([field.with_type(code) if coded and field.type == pa.string() else field for field in fields])


def _check_run(path: Path, table: pa.Table) -> None:
    """Raise unless all rows are of the run that the path names: ARM/seedSEED/EVAL.parquet."""
    run = {"arm": path.parts[-3], "seed": int(path.parent.name.removeprefix("seed")), "eval": path.stem}
    for column, expected in run.items():
        if column not in table.schema.names:
            continue
        others = [value for value in pc.unique(table[column]).to_pylist() if value != expected]
        if others:
            raise ImprintError(
                f"{path} holds rows of {column} {others[0]!r} instead of {expected!r}; delete it and run again"
            )


def not_as_made(path: Path, why: str) -> ImprintError:
    """The error for a file whose content the pipeline cannot have written."""
    return ImprintError(f"{path}: {why}; delete it and run again")


def concat(paths: Iterable[Path], name: str, columns: Collection[str] = (), coded: bool = False) -> pa.Table:
    """The rows of several files with the schema `name`, in the order of `paths`; `columns` and `coded` as in `read`."""
    tables = [read(path, name, columns, coded) for path in paths]
    return pa.concat_tables([empty(name, columns, coded), *tables]).unify_dictionaries()


def empty(name: str, columns: Collection[str] = (), coded: bool = False) -> pa.Table:
    """A table without rows."""
    return _schema(name, columns, coded).empty_table()
