"""Canonical JSON, fingerprints, and files that are written completely or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imprint.runtime.errors import ImprintError


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces. Raises ImprintError for anything that is not plain data, so that no identity
    depends on the repr of an object or on the order of a set."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ImprintError(f"cannot make an identity of {value!r}: {error}") from error


def fingerprint(value: Any) -> str:
    """sha256 (64 hex digits) of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`. The temporary file replaces `path` when the block ends well, and is removed when
    the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    temporary.chmod(0o644)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


LEFTOVER = re.compile(r"\..+\.[a-z0-9_]{8}\.part(\.wal|\.tmp)?")
"""Names of the temporary files that a killed process leaves: those of `atomic`, and those of DuckDB beside them."""


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON with sorted keys, atomically."""
    with atomic(path) as temporary:
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON. Raises ImprintError with the file's name where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or thousands of digits
        raise ImprintError(f"{path} cannot be read as JSON ({error}); delete it and run again") from error


def read_object(path: Path, *texts: str) -> dict[str, Any]:
    """Read a JSON object in which each key of `texts` has a text. Raises ImprintError for any other form."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ImprintError(f"{path} holds {value!r:.80} instead of a JSON object; delete it and run again")
    for key in texts:
        if not isinstance(value.get(key), str):
            raise ImprintError(f"{path}: found {value.get(key)!r:.80} as '{key}', not text; delete it and run again")
    return value


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a model or a fit: its kind, the fingerprint of its content, and the hash of its chat template."""
    return read_object(path, "kind", "fingerprint", "template_sha256")
