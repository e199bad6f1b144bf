"""The DuckDB file: small tables inside, large ones as views over Parquet. It can be deleted and made again."""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from imprint.runtime import parquet, schemas
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import atomic
from imprint.runtime.plugins import Strict

VIEWS = ("datasets", "prompts", "generations", "judgements", "scores")

# Each answer with the two means that it compares.
VERDICTS = """
create view verdicts as
select q.question, q.kind, q.arm, q.control, q.eval, q.metric, q.verdict, q.scope, q.difference, q.ci_low, q.ci_high,
       q.n_pairs, q.n_missing, q.n_seeds, a.mean as arm_mean, b.mean as control_mean, q.wins, q.losses, q.ties
from answers q
left join summary a on (a.arm, a.eval, a.metric) = (q.arm, q.eval, q.metric)
left join summary b on (b.arm, b.eval, b.metric) = (q.control, q.eval, q.metric)
"""


class Spec(Strict):
    """Empty: a database depends on its files alone."""


def run(spec: Spec, out: Path, files: Mapping[str, Path | Sequence[Path]]) -> None:
    """The database job."""
    write_duckdb(out, files)


def write_duckdb(path: Path, files: Mapping[str, Path | Sequence[Path]]) -> None:
    """Write a DuckDB file, atomically.

    `files`: name of a table in SCHEMAS (`summary` and `answers` at least) -> its Parquet file or files. Tables
    named in VIEWS become views over the files; their paths are absolute, so that the database can be opened from any
    folder. The others become tables. Raises ImprintError for an unknown table and for a broken file.
    """
    import duckdb

    for name in ("summary", "answers"):
        if name not in files:
            raise ImprintError(f"the database needs the table '{name}'; give its Parquet file")
    # In a temporary folder: DuckDB cannot write to a path with `?` or a backslash, and the project's may have one.
    with atomic(path) as temporary, tempfile.TemporaryDirectory() as folder:
        new = Path(folder, "new.duckdb")
        with duckdb.connect(str(new)) as connection:
            for name, one_or_more in files.items():
                if name not in schemas.SCHEMAS:
                    raise ImprintError(f"no table is called '{name}'; write one of: {', '.join(schemas.SCHEMAS)}")
                paths = [one_or_more] if isinstance(one_or_more, Path) else list(one_or_more)
                rows = parquet.concat(() if name in VIEWS else paths, name)
                connection.register("incoming", rows)
                if name in VIEWS and paths:
                    listed = ", ".join(_literal(p) for p in paths)
                    connection.execute(f"create view {name} as select * from read_parquet([{listed}])")
                else:
                    connection.execute(f"create table {name} as select * from incoming")
                connection.unregister("incoming")
            connection.execute(VERDICTS)
        shutil.copyfile(new, temporary)


def _literal(path: Path) -> str:
    """A path as an SQL string that matches this file alone. DuckDB reads every path as a glob pattern, so its special
    characters are escaped. A path with a backslash stays as it is: it cannot be escaped, and DuckDB takes a pattern
    that matches nothing for a plain path."""
    name = str(path.resolve())
    name = name if "\\" in name else glob.escape(name)
    return "'" + name.replace("'", "''") + "'"
