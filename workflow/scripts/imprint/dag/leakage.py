"""Leakage that can be seen before the first job. When a run begins, the rows that need neither the network nor a model
are compared: bundled and generated rows, and those from which datasets are synthesised. The rule `check_leakage`
compares the rows of all datasets again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imprint.config import graph
from imprint.config.schema import Config
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.tables import dataset_rows
from imprint.tables.contamination import message, shared, without
from imprint.tables.inputs import Read
from imprint.tables.overlap import Match

Cache = dict[str, "list[dict[str, Any]] | None"]


def readable(config: Config, name: str, cache: Cache) -> list[dict[str, Any]] | None:
    """A dataset's rows; for a dataset that is synthesised with a teacher or from runs, the rows that its own come from,
    as far as these can be read, without those that it leaves out. None for a dataset of the catalog or the hub, which
    may need the network."""
    if name not in cache:
        spec = config.datasets[name]
        if spec.source == "synth":
            sources = graph.rows_of(config, graph.of_dataset(config, name))
            parts = {other: readable(config, other, cache) for other in sources}
            if not made_now(config, name):
                rows = [row for other in graph.comes_from(config, name) for row in parts[other] or []]
                held_out = {other: parts[other] or [] for other in graph.left_out(config, name)}
                cache[name], _ = without(rows, held_out)
            else:
                read = Read(datasets={other: part or [] for other, part in parts.items()})
                cache[name] = plugins.load("synthesis", spec.plugin).rows(spec.settings, read, None).rows
        elif spec.entry() is not None or spec.split:
            cache[name] = None
        else:
            folder = spec.tables()
            files = [path] if (path := spec.path()) else []
            files += sorted(Path("resources", folder).iterdir()) if folder else []
            module = plugins.load("datasets", spec.plugin)
            cache[name] = dataset_rows.identified(module.rows(spec.settings, {file.name: file for file in files}))
    return cache[name]


def made_now(config: Config, name: str) -> bool:
    """Whether a dataset's rows can be made before the first job: no file of the catalog or the hub, no run and no
    teacher is behind them."""
    spec = config.datasets[name]
    if spec.source != "synth":
        return spec.entry() is None and spec.split is None
    inputs = graph.of_dataset(config, name)
    if spec.teacher() or inputs.runs or inputs.arms:
        return False
    return all(made_now(config, other) for other in inputs.datasets)


def check(config: Config) -> Cache:
    """Raise one `ImprintError` that names every overlap between rows of training and of evals that can be read now.
    Return the rows that were read."""
    rows: Cache = {}
    compared: dict[tuple[str, str], list[Match]] = {}
    tests, problems = graph.held_out(config), []
    for arm, spec in config.arms.items():
        for dataset in () if spec.transductive else graph.sees(config, arm):
            train = readable(config, dataset, rows) or []
            for ev in tests[arm] if train else ():
                name = config.evals[ev].dataset
                held_out = readable(config, name, rows) or []
                if (dataset, name) not in compared:
                    compared[dataset, name] = shared(train, held_out, graph.near_copies_count(config, dataset, name))
                if matches := compared[dataset, name]:
                    problems.append(message(arm, dataset, ev, held_out, matches))
    if problems:
        raise ImprintError("\n".join(problems))
    return rows
