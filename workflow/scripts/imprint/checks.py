"""Problems of a config, in words: what does not fit the model, and what only shows when the parts are seen together,
such as missing names, cycles, controls that compare nothing, licences not accepted. Leakage between training and
evaluation is `imprint.leakage`'s."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprint import catalog, plugins
from imprint.methods import Inputs

if TYPE_CHECKING:
    from imprint.config import Config


def unknown(where: str, name: str, known: Any, what: str) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{where}: no {what} named '{name}'; {hint}write one of: {', '.join(known) or '(none are defined)'}"


SHAPES = dict.fromkeys(("dict_type", "model_type"), "a mapping, `{key: value}`") | {"list_type": "a list, `[one]`"}
"""Kinds of pydantic errors that speak of Python's types, and what to write in YAML."""


def message(error: Any) -> str:
    """One pydantic error as path, finding and remedy."""
    location = [part for part in error["loc"] if part != "[key]"]
    where = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", ".".join(str(part) for part in location)) or "the file"
    found = error.get("input")
    kind = error["type"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key '{location[-1]}'; remove it or write a key of config/README.md"
    if kind == "missing":
        return f"{where}: missing; add it (config/README.md says what it is)"
    if error["loc"][-1:] == ("[key]",):
        where = ".".join(map(str, (*location[:-1], found)))  # pydantic writes a key of `true` as 1
        return (
            f"{where}: bad name; write lower-case letters, digits and _, at least two characters, "
            "beginning with a letter and not ending with _"
        )
    if kind == "string_pattern_mismatch":
        return f"{where}: found {found!r}, which does not look like {error['ctx']['pattern']}"
    if kind in SHAPES:
        return f"{where}: found {found!r:.80}; write {SHAPES[kind]}"
    text = error["msg"].removeprefix("Value error, ")
    if kind in ("value_error", "assertion_error"):
        return f"{where}: {text}"
    return f"{where}: found {found!r:.80}; {text[0].lower()}{text[1:]}".replace("input should be", "write")


def problems(config: Config) -> Iterator[str]:
    """Problems that only show when the parts are seen together, or beside the files that they name."""
    for name, model in config.models.items():
        if model.path and not list(Path(model.path).glob("*.safetensors")):
            yield f"models.{name}.path: '{model.path}' is no folder with safetensors; copy the model there"
    for name, dataset in config.datasets.items():
        where = f"datasets.{name}"
        entry = dataset.entry() if dataset.source != "synth" else None
        if entry is not None:
            entries = catalog.load()
            if entry not in entries:
                yield unknown(where, entry, entries, "catalog entry")
            elif entries[entry].non_commercial and entry not in config.accept_licences:
                yield (
                    f"{where}: '{entry}' is for non-commercial use ({entries[entry].licence}); if that is yours, "
                    f"write `accept_licences: [{entry}]`"
                )
        needs = config.synth_needs(name)
        for other in needs.datasets:
            if other not in config.datasets:
                yield unknown(where, other, config.datasets, "dataset")
        for arm_name in needs.arms:
            if arm_name not in config.arms:
                yield unknown(where, arm_name, config.arms, "arm")
    for name, ev in config.evals.items():
        if ev.dataset not in config.datasets:
            yield unknown(f"evals.{name}.dataset", ev.dataset, config.datasets, "dataset")
        if ev.judge is not None and ev.judge not in config.arms:
            yield unknown(f"evals.{name}.judge", ev.judge, config.arms, "arm")
    for name, arm in config.arms.items():
        where = f"arms.{name}"
        if arm.model is not None and arm.model not in config.models:
            yield unknown(f"{where}.model", arm.model, config.models, "model")
        if arm.parent is not None and arm.parent not in config.arms:
            yield unknown(f"{where}.parent", arm.parent, config.arms, "arm")
        for ev_name in arm.evals or []:
            if ev_name not in config.evals:
                yield unknown(f"{where}.evals", ev_name, config.evals, "eval")
        if len(set(arm.control)) != len(arm.control):
            yield f"{where}.control: found {arm.control}; each control may stand once"
        for control in arm.control:
            if control not in config.arms:
                yield unknown(f"{where}.control", control, config.arms, "arm")
            elif control == name:
                yield f"{where}.control: the arm is its own control; write another arm"
            elif not set(config.evals_of(name)) & set(config.evals_of(control)):
                yield (
                    f"{where}.control: shares no eval with '{control}'; add one to `evals` of both, or drop the control"
                )
        method = plugins.load("methods", arm.fit.method) if arm.fit else None
        if method is not None and getattr(method, "TRANSDUCTIVE", False) and not arm.transductive:
            name_of = method.__name__.split(".")[-1]
            yield f"{where}: {name_of} adapts to rows that may be an eval's; write `transductive: true`"
        needs = config.needs(name)
        for dataset_name in needs.datasets:
            if dataset_name not in config.datasets:
                yield unknown(f"{where}.fit", dataset_name, config.datasets, "dataset")
        for other in [*needs.arms, *(run[0] for run in needs.runs)]:
            if other not in config.arms:
                yield unknown(f"{where}.fit", other, config.arms, "arm")
        for other, ev_name in needs.runs:
            if other in config.arms and ev_name not in config.evals_of(other):
                yield unknown(f"{where}.fit", ev_name, config.evals_of(other), f"eval of arm '{other}'")
    for name in config.analyses:
        for other in config.analysis_needs(name).arms:
            if other not in config.arms:
                yield unknown(f"analyses.{name}", other, config.arms, "arm")
    yield from _cycles(config)


def depends(config: Config) -> dict[str, set[str]]:
    """What each arm ("arm/NAME") and dataset ("dataset/NAME") is made from, as edges of one graph."""

    def edges(needs: Inputs) -> set[str]:
        arms = {*needs.arms, *(arm for arm, _ in needs.runs)}
        sets = {*needs.datasets, *(config.evals[name].dataset for _, name in needs.runs if name in config.evals)}
        return {f"arm/{name}" for name in arms} | {f"dataset/{name}" for name in sets}

    graph = {f"dataset/{name}": edges(config.synth_needs(name)) for name in config.datasets}
    for name, arm in config.arms.items():
        graph[f"arm/{name}"] = edges(config.needs(name)) | ({f"arm/{arm.parent}"} if arm.parent else set())
    return graph


def _cycles(config: Config) -> Iterator[str]:
    graph = depends(config)
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        """The first cycle met below `node`, as a path that ends where it begins."""
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done or node not in graph:
            return []
        for other in sorted(graph[node]):
            if found := visit(other, [*trail, node]):
                return found
        done.add(node)
        return []

    for start in graph:
        if cycle := visit(start, []):
            kind, name = cycle[0].split("/")
            path = " -> ".join(step.split("/")[1] for step in cycle)
            yield f"{kind}s.{name}: made from itself: {path}; break the cycle"
            return
