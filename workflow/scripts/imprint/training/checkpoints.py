"""Checkpoints of a fit: which of them are complete, and which are removed.

A trainer writes a checkpoint into a folder `checkpoint-STEP`. Then `seal` adds a file with the sizes and hashes of the
others. If the folder has no such file, the job was killed while it wrote the checkpoint. If the files differ from it,
the checkpoint was damaged later.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.identity import file_sha256, read_object, write_json

SEAL = "complete.json"
NUMBER_KEPT = 2
"""How many checkpoints of a fit are kept. With only one, damage to it would cost all steps of the fit."""


def _steps(folder: Path) -> list[Path]:
    """The checkpoints in a folder, latest first."""
    folders = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True)


def files(folder: Path, step: int) -> list[str]:
    """The names of the files that the checkpoint of a step holds. A name that begins with a dot is that of a file while
    it is written, and another machine may list it for a while after that."""
    names = (file.name for file in Path(folder, f"checkpoint-{step}").iterdir())
    return sorted(name for name in names if name != SEAL and not name.startswith("."))


def seal(folder: Path, step: int, names: Iterable[str] = ()) -> None:
    """Mark the checkpoint of a step as complete. It also has the files with these `names`, which this machine may not
    list yet. All but the latest NUMBER_KEPT checkpoints are removed."""
    path = folder / f"checkpoint-{step}"
    sealed = [path / name for name in sorted({*files(folder, step), *names})]
    write_json(path / SEAL, {f.name: {"bytes": f.stat().st_size, "sha256": file_sha256(f)} for f in sealed})
    for old in _steps(folder)[NUMBER_KEPT:]:
        _remove(old)


def _remove(path: Path) -> None:
    """Remove a checkpoint. If it is a link, its target stays, because no fit made it."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path)


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None if it is complete."""
    if path.is_symlink():
        return "is a link, which no fit makes"
    if not (path / SEAL).is_file():
        return "was not finished"
    try:
        sealed = {name: (entry["bytes"], entry["sha256"]) for name, entry in read_object(path / SEAL).items()}
    except (ImprintError, TypeError, KeyError):
        return f"has an unreadable {SEAL}"
    files = {file.name: file for file in path.iterdir() if file.name != SEAL}
    if strange := sorted(set(files) - set(sealed)):
        return f"holds {strange[0]}, which its {SEAL} does not name"
    for name, (sealed_size, sha256) in sealed.items():
        size = files[name].stat().st_size if name in files and files[name].is_file() else None
        if size != sealed_size:
            return f"is damaged: {name} has {'no' if size is None else size} bytes instead of {sealed_size}"
        if file_sha256(files[name]) != sha256:
            return f"is damaged: {name} does not have the content that was written"
    return next(filter(None, map(_unreadable, sorted(path.glob("*.pt*")))), None)


def _unreadable(file: Path) -> str | None:
    """Why torch cannot read a file of states, or None if it can. With `weights_only`, torch reads plain data and
    refuses pickles that call functions."""
    import torch
    from transformers.trainer_pt_utils import safe_globals

    try:
        with safe_globals():  # type: ignore[no-untyped-call]
            torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # of many kinds
        return f"holds {file.name}, which torch does not read ({str(error).partition('. ')[0]:.200})"
    return None


def last(folder: Path) -> Path | None:
    """The latest complete checkpoint, or None if the fit starts from the beginning. Later checkpoints, which cannot be
    used, are named on stderr and removed, so that the trainer can write them anew."""
    for path in _steps(folder):
        fault = _fault(path)
        if fault is None:
            return path
        print(shown(f"imprint: {path} {fault}; going on from the one before it, or from the start"), file=sys.stderr)
        _remove(path)
    return None
