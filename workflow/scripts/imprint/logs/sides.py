"""The two sides of a comparison: which logs a path names, and the eval and the training run of each log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from imprint.imports import Log
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError

ENDINGS = (".jsonl", ".parquet", ".eval", ".json")


@dataclass(frozen=True)
class Side:
    """One side: its name; its logs by eval, one for each run, in order; the files of the logs; the number of runs.
    Every row of a log has a seed."""

    name: str
    logs: dict[str, list[Log]]
    files: list[Path]
    runs: int


def both(first: str, second: str, fields: dict[str, Any]) -> tuple[Side, Side]:
    """The sides that two arguments name. If each side has logs of a single eval, both are taken for the same eval,
    whatever the files are called."""
    paths = [_paths(text) for text in (first, second)]
    names = _names(paths)
    sides = [_side(name, runs, fields) for name, runs in zip(names, paths, strict=True)]
    if all(len(side.logs) == 1 for side in sides):
        (logs,), (name,) = sides[0].logs.values(), sides[1].logs
        sides[0] = Side(sides[0].name, {name: logs}, sides[0].files, sides[0].runs)
    return sides[0], sides[1]


def _paths(text: str) -> list[Path]:
    """The runs that an argument names: a path, or several with commas between them."""
    parts = [text] if Path(text).exists() else text.split(",")
    for part in parts:
        if not part or not Path(part).exists():
            raise ImprintError(f"{part or text}: there is no such file or folder; write the path of a log")
    return [Path(part) for part in parts]


def _names(paths: list[list[Path]]) -> list[str]:
    """A name for each side: that of its first folder or file. Where these are equal, the names are the first parts in
    which the two paths differ."""
    names = [runs[0].stem if runs[0].is_file() else runs[0].resolve().name for runs in paths]
    if len(set(names)) > 1:
        return names
    parts = [runs[0].resolve().parts for runs in paths]
    for pair in zip(*parts, strict=False):
        if len(set(pair)) > 1:
            return (
                [Path(part).stem or part for part in pair] if Path(pair[0]).stem != Path(pair[1]).stem else list(pair)
            )
    raise ImprintError(f"{paths[0][0]}: is compared with itself or with a part of itself; write two logs")


def _side(name: str, runs: list[Path], fields: dict[str, Any]) -> Side:
    logs: dict[str, list[Log]] = {}
    files: list[Path] = []
    for number, run in enumerate(runs):
        paths: dict[str, Path] = {}  # by eval
        for path in _files(run):
            if (reader := _reader(path)) is None:
                if path == run:
                    raise ImprintError(
                        f"{path}: no reader knows this log; write a log that one of these reads: "
                        f"{', '.join(plugins.names('imports'))}"
                    )
                continue
            log = plugins.load("imports", reader).read(path, plugins.settings("imports", reader, fields))
            if log.eval in paths:
                raise ImprintError(
                    f"{paths[log.eval]} and {path} are both logs of '{log.eval}'; name one of them, or write "
                    "runs with commas between them, A1,A2"
                )
            paths[log.eval] = path
            logs.setdefault(log.eval, []).append(_seeded(path, log, number, len(runs)))
        if not paths:
            raise ImprintError(f"{run}: holds no log; write the path of a log, or of a folder with logs")
        files += paths.values()
    for eval_name, eval_logs in logs.items():
        if len(eval_logs) != len(runs):
            raise ImprintError(
                f"{name}: only {len(eval_logs)} of {len(runs)} runs have a log of '{eval_name}'; add the others"
            )
    seeds = {seed for eval_logs in logs.values() for log in eval_logs for seed in log.samples["seed"].unique()}
    return Side(name, logs, files, len(seeds))


def _files(run: Path) -> Iterator[Path]:
    """The files that may be logs, in the order of their names."""
    if run.is_file():
        yield run
    else:
        yield from sorted(path for path in run.rglob("*") if path.is_file() and path.suffix in ENDINGS)


def _reader(path: Path) -> str | None:
    """The reader that a file suits."""
    return next((name for name in plugins.names("imports") if plugins.load("imports", name).suits(path)), None)


def _seeded(path: Path, log: Log, number: int, runs: int) -> Log:
    """The log with a seed in every row: its own, else the number of the run."""
    missing = log.samples["seed"].null_count()
    if missing not in (0, log.samples.height):
        raise ImprintError(f"{path}: {missing} rows have no seed; write a seed in all rows, or in none")
    if not missing and runs > 1:
        raise ImprintError(f"{path}: has seeds of its own, and is one of {runs} runs; write one file with all seeds")
    return log._replace(samples=log.samples.with_columns(pl.col("seed").fill_null(number)))
