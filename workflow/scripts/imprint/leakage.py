"""Leakage is judged by content, not by name: a training set that shares a row with an eval is an error.

A row is known by its user turns, in small letters and without punctuation (plain text by its text). What can be read
without the network (bundled and generated rows, and what is synthesised from them) is compared when the config is
loaded; everything is compared again, from the prepared rows, by the rule `check_leakage`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imprint import plugins, tables
from imprint.config import Config
from imprint.errors import ImprintError

SHORT = 4  # a turn of fewer words, such as "go on", is no content unless it is the only one


def keys(row: dict[str, Any]) -> set[str]:
    """What a row is known by."""
    turns = [message["content"] for message in row["messages"] if message["role"] == "user"]
    options = (row.get("reference") or {}).get("options")
    texts = turns or [str(text) for text in (options if isinstance(options, list) else [])]
    normal = [" ".join(re.findall(r"\w+", text.casefold())) for text in texts]
    return {text for text in normal if len(normal) == 1 or len(text.split()) >= SHORT}


def shared(train: Iterable[dict[str, Any]], held_out: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of an eval that a training set holds as well."""
    known = {key for row in train for key in keys(row)}
    return [row for row in held_out if known & keys(row)]


def message(arm: str, dataset: str, ev: str, rows: list[dict[str, Any]]) -> str:
    """What to tell the person whose training set overlaps an eval."""
    first = next((m["content"] for m in rows[0]["messages"] if m["role"] == "user"), "")
    return (
        f"arms.{arm}: trains on '{dataset}', which shares {len(rows)} row(s) with the eval '{ev}' "
        f"(such as {first!r:.70}); take other rows for one of them (another seed, part or dataset), or write "
        "`transductive: true` on the arm if it may see them"
    )


def _rows(config: Config, name: str, cache: dict[str, list[dict[str, Any]] | None]) -> list[dict[str, Any]] | None:
    """A dataset's rows, or None when they cannot be had without the network or a model."""
    if name not in cache:
        spec = config.datasets[name]
        if spec.source == "synth":
            parts = [_rows(config, other, cache) for other in config.synth_needs(name).datasets]
            cache[name] = [row for part in parts for row in part or []]
        elif spec.entry() is not None:
            cache[name] = None
        else:
            folder = spec.tables()
            files = [Path("resources/bundled", spec.name)] if spec.source == "bundled" else []
            files += sorted(Path("resources", folder).iterdir()) if folder else []
            module = plugins.load("datasets", spec.plugin)
            cache[name] = list(module.rows(spec.settings, {file.name: file for file in files}))
    return cache[name]


def check(config: Config) -> None:
    """Raise one `ImprintError` that names every overlap that can be seen now."""
    cache: dict[str, list[dict[str, Any]] | None] = {}
    used = sorted({name for arm in config.arms for name in config.evals_of(arm)})
    problems = []
    for arm, spec in config.arms.items():
        for dataset in () if spec.transductive else config.trains_on(arm):
            train = _rows(config, dataset, cache)
            for ev in used if train else ():
                rows = shared(train or (), _rows(config, config.evals[ev].dataset, cache) or ())
                if rows:
                    problems.append(message(arm, dataset, ev, rows))
    if problems:
        raise ImprintError("\n".join(problems))


def run(pairs: list[dict[str, Any]], out: Path) -> None:
    """The same check on the prepared rows: writes the contamination table, or raises when a pair overlaps."""
    cache: dict[str, list[dict[str, Any]]] = {}
    rows, problems = [], []
    for pair in pairs:
        for path in (pair["train"], pair["held_out"]):
            if path not in cache:
                cache[path] = tables.read_dataset(Path(path))
        found = shared(cache[pair["train"]], cache[pair["held_out"]])
        if found and not pair["transductive"]:
            problems.append(message(pair["arm"], pair["dataset"], pair["eval"], found))
        sizes = {"n_train": len(cache[pair["train"]]), "n_eval": len(cache[pair["held_out"]]), "n_shared": len(found)}
        rows.append({**{key: pair[key] for key in ("arm", "dataset", "eval")}, **sizes})
    if problems:
        raise ImprintError("\n".join(problems))
    tables.write(out, "contamination", rows)
