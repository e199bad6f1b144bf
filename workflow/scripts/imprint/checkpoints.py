"""Checkpoints of a training run: which one is whole, and which may go.

A trainer writes a folder `checkpoint-STEP`; `seal` then writes the sizes and hashes of its files beside them, last. A
folder without the seal was being written when the job was killed; one that differs from it was damaged later.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from imprint.errors import ImprintError, shown
from imprint.identity import file_sha256, read_json, write_json

SEAL = "complete.json"
KEPT = 2
"""Two: were only the last one kept, a damaged one would cost the whole run."""


def _steps(folder: Path) -> list[Path]:
    """The checkpoints in a folder, latest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True)


def seal(folder: Path, step: int) -> None:
    """Mark the checkpoint of a step as whole, and remove those older than the last KEPT."""
    path = folder / f"checkpoint-{step}"
    files = sorted(file for file in path.iterdir() if file.name != SEAL)
    write_json(path / SEAL, {f.name: {"bytes": f.stat().st_size, "sha256": file_sha256(f)} for f in files})
    for old in _steps(folder)[KEPT:]:
        shutil.rmtree(old)


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    if not (path / SEAL).is_file():
        return "was not finished"
    try:
        seal = dict(read_json(path / SEAL))
    except (ImprintError, TypeError, ValueError):
        return f"has an unreadable {SEAL}"
    for name, known in seal.items():
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        if size != known["bytes"]:
            return f"is damaged: {name} has {'no' if size is None else size} bytes instead of {known['bytes']}"
        if file_sha256(file) != known["sha256"]:
            return f"is damaged: {name} does not have the content that was written"
    return None


def last(folder: Path) -> Path | None:
    """The latest whole checkpoint, or None to start from the beginning. Unusable ones are named on stderr and removed,
    so that the trainer can write them anew."""
    for path in _steps(folder):
        fault = _fault(path)
        if fault is None:
            return path
        print(shown(f"imprint: {path} {fault}; going on from the one before it, or from the start"), file=sys.stderr)
        shutil.rmtree(path)
    return None
