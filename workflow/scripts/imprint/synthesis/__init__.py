"""Synthesis: datasets made from other datasets, by a teacher arm where one is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from imprint import generation, models, plugins, tables, work
from imprint.identity import file_sha256, fingerprint, read_manifest


class Made(NamedTuple):
    """What a synthesiser returns: the rows of the new dataset, and one record per attempt (schema `synthesis`)."""

    rows: list[dict[str, Any]]
    attempts: list[dict[str, Any]]


def run(
    *,
    spec: dict[str, Any],
    datasets: list[Path],
    manifests: list[Path],
    code: list[Path],
    out: Path,
    attempts: Path,
    device: Callable[[], str],
) -> None:
    """Make one dataset. The teacher's answers are kept as shards in a work folder, so a killed job asks only for the
    rest; a synthesiser that stops for a low yield leaves them there too."""
    module = plugins.load("synthesis", spec["plugin"])
    settings = plugins.settings("synthesis", spec["plugin"], spec["settings"])
    needs = module.inputs(settings)
    identity = {
        "spec": spec,
        "data": [file_sha256(path) for path in datasets],
        "teacher": [read_manifest(path)["fingerprint"] for path in manifests],
    }
    rows = {name: tables.read_dataset(path, spec["limit"]) for name, path in zip(needs.datasets, datasets, strict=True)}
    here = device() if manifests else ""
    dtype = models.dtype_of(spec["engine"]["dtype"], here) if manifests else ""
    whole = fingerprint({**identity, "code": work.sums(code), "device": [here, dtype]})
    with work.folder(out.with_suffix(".work"), whole) as scratch:
        ask = generation.asker(manifests, spec["engine"], scratch, here) if manifests else None
        made = module.rows(settings, rows, ask)
        tables.write(attempts, "synthesis", [{"dataset": spec["dataset"], **attempt} for attempt in made.attempts])
        # `source_sha256` names what the rows were made from, not the code that made them.
        tables.write_dataset(out, spec["dataset"], made.rows, fingerprint(identity))
        work.remove(scratch)
