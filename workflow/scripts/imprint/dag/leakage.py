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
from imprint.tables.overlap import Match

Cache = dict[str, "list[dict[str, Any]] | None"]


def readable(config: Config, name: str, cache: Cache) -> list[dict[str, Any]] | None:
    """A dataset's rows; for a synthesised dataset, the rows of its sources as far as these can be read, without those
    that it leaves out. None for a dataset of the catalog, which may need the network."""
    if name not in cache:
        spec = config.datasets[name]
        if spec.source == "synth":
            parts = [readable(config, other, cache) for other in graph.comes_from(config, name)]
            held_out = {other: readable(config, other, cache) or [] for other in graph.left_out(config, name)}
            cache[name], _ = without([row for part in parts for row in part or []], held_out)
        elif spec.entry() is not None:
            cache[name] = None
        else:
            folder = spec.tables()
            files = [Path("resources/bundled", spec.name)] if spec.source == "bundled" else []
            files += sorted(Path("resources", folder).iterdir()) if folder else []
            module = plugins.load("datasets", spec.plugin)
            cache[name] = dataset_rows.identified(module.rows(spec.settings, {file.name: file for file in files}))
    return cache[name]


def check(config: Config) -> Cache:
    """Raise one `ImprintError` that names every overlap between rows of training and of evals that can be read now.
    Return the rows that were read."""
    rows: Cache = {}
    compared: dict[tuple[str, str], list[Match]] = {}
    evals = sorted({ev for _, ev in graph.runs_of(config)})
    problems = []
    for arm, spec in config.arms.items():
        for dataset in () if spec.transductive else graph.sees(config, arm):
            train = readable(config, dataset, rows) or []
            for ev in evals if train else ():
                name = config.evals[ev].dataset
                held_out = readable(config, name, rows) or []
                if (dataset, name) not in compared:
                    compared[dataset, name] = shared(train, held_out, graph.near_copies_count(config, dataset, name))
                if matches := compared[dataset, name]:
                    problems.append(message(arm, dataset, ev, held_out, matches))
    if problems:
        raise ImprintError("\n".join(problems))
    return rows
