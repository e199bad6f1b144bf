"""Datasets: readers of public files and generators of rows. The prepare job runs one and gives the rows their ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imprint import plugins, tables
from imprint.errors import ImprintError
from imprint.identity import file_sha256, fingerprint

ROLES = {"system", "user", "assistant"}


def prepare(spec: dict[str, Any], files: list[Path], out: Path) -> None:
    """Read or generate the rows of one dataset and write them. `files` are those its plug-in reads."""
    module = plugins.load("datasets", spec["plugin"])
    settings = plugins.settings("datasets", spec["plugin"], spec["settings"])
    rows = list(module.rows(settings, {file.name: file for file in files}))
    if not rows:
        raise ImprintError(f"dataset '{spec['dataset']}' has no rows; check its settings in the config")
    for number, row in enumerate(rows, 1):
        for message in row["messages"]:
            if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
                raise ImprintError(
                    f"dataset '{spec['dataset']}', row {number}: found the message {message!r:.80}; a message is "
                    "{role: system|user|assistant, content: text}"
                )
    # Code is an input of the rule; of the data, the hash of the files, or of the settings of a generator, says which.
    hashes = [file_sha256(file) for file in sorted(files)]
    tables.write_dataset(out, spec["dataset"], rows, fingerprint([hashes, spec["plugin"], spec["settings"]]))
