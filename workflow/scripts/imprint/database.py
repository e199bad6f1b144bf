"""The DuckDB file: small tables inside, large ones as views over Parquet. It can be deleted and made again."""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from imprint import tables
from imprint.errors import ImprintError
from imprint.identity import atomic

VIEWS = ("datasets", "prompts", "generations", "judgements", "scores")

# Each comparison with the two means that it compares.
VERDICTS = """
create view verdicts as
select c.arm, c.control, c.eval, c.metric, c.family, c.verdict, c.difference, c.ci_low, c.ci_high, c.p_adjusted,
       c.n_pairs, c.n_missing, a.mean as arm_mean, b.mean as control_mean, c.wins, c.losses, c.ties, c.test
from comparisons c
left join summary a on (a.arm, a.eval, a.metric) = (c.arm, c.eval, c.metric)
left join summary b on (b.arm, b.eval, b.metric) = (c.control, c.eval, c.metric)
"""


def write_duckdb(path: Path, files: Mapping[str, Path | Sequence[Path]]) -> None:
    """Write a DuckDB file, atomically.

    `files`: table name (of tables.SCHEMAS; `summary` and `comparisons` at least) -> its Parquet file or files. Those
    named in VIEWS become views that read the files where they lie (absolute paths, so that the database can be opened
    from any folder), the others become tables. Raises ImprintError for an unknown table and for a broken file.
    """
    for name in ("summary", "comparisons"):
        if name not in files:
            raise ImprintError(f"the database needs the table '{name}'; give its Parquet file")
    # In a folder of its own: DuckDB can write none whose path holds `?` or a backslash, as the project's may.
    with atomic(path) as temporary, tempfile.TemporaryDirectory() as folder:
        new = Path(folder, "new.duckdb")
        with duckdb.connect(str(new)) as connection:
            for name, given in files.items():
                if name not in tables.SCHEMAS:
                    raise ImprintError(f"no table is called '{name}'; write one of: {', '.join(tables.SCHEMAS)}")
                paths = [given] if isinstance(given, Path) else list(given)
                rows = tables.concat(() if name in VIEWS else paths, name)
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
    """A path as SQL that names this file alone, where DuckDB takes every path for a pattern. It knows no way to write
    a backslash in one, and no pattern with a backslash matches, so that it takes such a path as it is."""
    name = str(path.resolve())
    name = name if "\\" in name else glob.escape(name)
    return "'" + name.replace("'", "''") + "'"
