"""The DuckDB file: small tables inside, large ones as views over Parquet. It can be deleted and made again.

Beside the tables of `runtime/schemas.py` it has `arms` and `evals`, which say what these are, and the views of
`tables/views.py`. No key that tables are joined by is null: in SQL a null equals nothing, so a join would lose the row
without an error. A missing number is -1, a missing name ''."""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from imprint.runtime import parquet, schemas
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import atomic
from imprint.runtime.plugins import Strict
from imprint.tables import views

FILES = ("datasets", "prompts", "generations", "judgements", "scores", "scored_texts")
"""Tables that become views over their files."""
KEYS = {
    "analyses": {"other": "''", "layer": "-1", "kind": "''"},
    "coefficients": {"layer": "-1"},
    "costs": {"eval": "''"},
    "scores": {"item": "-1"},
}
"""Table -> its keys that may be missing in a row, and what they then are."""


class Arm(Strict):
    """A row of the table `arms`. `fit`, `apply` and `runs` are JSON text, with all settings. `model` is the root model,
    null for the runs of another harness."""

    arm: str
    what: str
    parent: str | None
    model: str | None
    method: str | None
    fit: str | None
    apply: str
    runs: str | None
    control: list[str]
    transductive: bool


class Eval(Strict):
    """A row of the table `evals`. `responses` is the eval whose responses it scores, itself or another one. `settings`
    is the eval's part of the config as JSON text, with all settings. An eval that only samples has the score '', the
    metric '' and the direction 0."""

    eval: str
    dataset: str
    responses: str
    score: str
    asks: str
    primary_metric: str
    direction: int
    retention: bool
    settings: str


class Spec(Strict):
    """What the tables do not say: what the arms and evals are."""

    arms: list[Arm]
    evals: list[Eval]


TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    str | None: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    list[str]: pa.list_(pa.string()),
}
"""Type of a field of `Arm` and `Eval` -> type of its column."""


def run(spec: Spec, out: Path, files: Mapping[str, Path | Sequence[Path]]) -> None:
    """Write the DuckDB file, atomically.

    `files`: name of a table in SCHEMAS (`summary` and `answers` at least) -> its Parquet file or files. Tables named in
    FILES become views over the files; their paths are absolute, so that the database can be opened from any folder. The
    others become tables. Raises ImprintError for an unknown table and for a broken file.
    """
    import duckdb

    for name in ("summary", "answers"):
        if name not in files:
            raise ImprintError(f"the database needs the table '{name}'; give its Parquet file")
    # In a temporary folder: DuckDB cannot write to a path with `?` or a backslash, and the project's may have one.
    with atomic(out) as temporary, tempfile.TemporaryDirectory() as folder:
        new = Path(folder, "new.duckdb")
        with duckdb.connect(str(new)) as connection:

            def create(name: str, rows: pa.Table, columns: str = "*") -> None:
                connection.register("incoming", rows)
                connection.execute(f"create table {name} as select {columns} from incoming")
                connection.unregister("incoming")

            for name, one_or_more in {**dict.fromkeys(FILES, ()), **files}.items():
                if name not in schemas.SCHEMAS:
                    raise ImprintError(f"no table is called '{name}'; write one of: {', '.join(schemas.SCHEMAS)}")
                paths = [one_or_more] if isinstance(one_or_more, Path) else list(one_or_more)
                if name in FILES and paths:
                    listed = ", ".join(map(_literal, paths))
                    connection.execute(f"create view {name} as select {_columns(name)} from read_parquet([{listed}])")
                else:
                    create(name, parquet.concat(paths, name), _columns(name))
            create("arms", _described(Arm, spec.arms))
            create("evals", _described(Eval, spec.evals))
            for view in views.VIEWS:
                connection.execute(view)
        shutil.copyfile(new, temporary)


def _described(kind: type[Strict], rows: Sequence[Strict]) -> pa.Table:
    schema = pa.schema([(name, TYPES[field.annotation]) for name, field in kind.model_fields.items()])
    return pa.Table.from_pylist([row.model_dump() for row in rows], schema=schema)


def _columns(name: str) -> str:
    """The columns of a table in SQL, without nulls in its keys."""
    filled = [f"coalesce({key}, {missing}) as {key}" for key, missing in KEYS.get(name, {}).items()]
    return f"* replace ({', '.join(filled)})" if filled else "*"


def _literal(path: Path) -> str:
    """A path as an SQL string that matches this file alone. DuckDB reads every path as a glob pattern, so its special
    characters are escaped. A path with a backslash stays as it is: it cannot be escaped, and DuckDB takes a pattern
    that matches nothing for a plain path."""
    name = str(path.resolve())
    name = name if "\\" in name else glob.escape(name)
    return "'" + name.replace("'", "''") + "'"
