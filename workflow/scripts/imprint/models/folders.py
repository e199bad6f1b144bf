"""Folders of weights that others have made: which of their files count, and how these files come into a folder of ours.
Weights are linked and not copied, so that a checkpoint lies on the disk once. Files that could run code (pickles, code
of a repository) never count."""

from __future__ import annotations

import fnmatch
import os
import shutil
from pathlib import Path

INCLUDED = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
"""Patterns of the files that count."""
EXCLUDED = ("consolidated*.safetensors", "manifest.json")
"""Patterns of files that do not count although INCLUDED matches them."""


def counts(name: str) -> bool:
    """Whether a file of a repository or folder counts: top level only, and nothing that can run."""
    return (
        "/" not in name
        and any(fnmatch.fnmatch(name, pattern) for pattern in INCLUDED)
        and not any(fnmatch.fnmatch(name, pattern) for pattern in EXCLUDED)
    )


def files(path: str, project: Path = Path()) -> list[Path]:
    """The files of a folder that count, sorted. `path` is relative to `project`, absolute, or begins with `~`."""
    folder = project / Path(path).expanduser()
    return sorted(file for file in folder.glob("*") if counts(file.name) and file.is_file())


def bring(source: Path, target: Path) -> None:
    """Let `target` be the file `source`: safetensors are linked, other files are copied.

    A hard link keeps the weights although `source` is deleted. Where the file system has no hard link to the file, as
    from disk to disk, a symbolic link leads to it. A file that is overwritten changes behind either link; whoever loads
    weights compares them with their manifest, and so notices."""
    if not target.name.endswith(".safetensors"):
        shutil.copyfile(source, target)
        return
    original = source.resolve()
    try:
        os.link(original, target)
    except OSError:
        target.symlink_to(original)
