"""Work folders: a job keeps its finished parts in one, so that a killed job goes on instead of starting again.

A folder belongs to one piece of work, which has a fingerprint; when the work changes, the folder is emptied. The job
holds the folder by an flock. The kernel drops the flock when the job's process dies, so a leftover lock file stops
nobody. A job that survived its killed workflow still holds the flock, so it never writes beside the job that replaces
it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel

from imprint.runtime import origin
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, fingerprint, read_manifest

LOCK = ".lock"
FINGERPRINT = ".fingerprint"
WAIT = 60.0  # seconds


def _open_locked(path: Path, wait: float) -> int:
    """A file descriptor that holds the lock of the folder that is on disk now. The former holder may remove the folder
    during the wait; then the lock is that of a removed file, and everything is tried again."""
    deadline = time.monotonic() + wait
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "an unknown process"
                        raise ImprintError(
                            f"{path} is in use by {holder}, still after {wait:.0f} s; if a killed run left that job "
                            "behind, write `make resume`, which ends such jobs and goes on"
                        ) from None
                    time.sleep(0.1)
            if os.path.samestat(os.fstat(descriptor), os.stat(path / LOCK)):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _wipe(path: Path) -> None:
    """Remove everything but the lock. The fingerprint goes first, so that a folder is wiped again after a kill in the
    middle."""
    (path / FINGERPRINT).unlink(missing_ok=True)
    for entry in path.iterdir():
        if entry.name == LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def identity(spec: BaseModel, files: Iterable[Path], manifests: Iterable[Path], code: str, *where: str) -> str:
    """The fingerprint of a piece of work: of its spec, the content of `files`, the fingerprints in `manifests`, its
    `code` (the param), and `where` it runs (device and number format), if its parts depend on that."""
    return fingerprint(
        {
            "spec": spec.model_dump(mode="json"),
            "files": [file_sha256(path) for path in files],
            "weights": [read_manifest(path)["fingerprint"] for path in manifests],
            "code": code,
            "where": where,
        }
    )


@contextmanager
def folder(path: Path, fingerprint: str, wait: float = WAIT) -> Iterator[Path]:
    """Hold the folder `path` for the work with this fingerprint. Files that the same work has left there stay; files of
    other work are removed. Waits up to `wait` seconds for another holder, then raises ImprintError that says who holds
    it. The folder outlives the block, so that a later attempt can go on; call `remove` inside the block when the work
    is done."""
    descriptor = _open_locked(path, wait)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        mark = path / FINGERPRINT
        if not mark.is_file() or mark.read_text(encoding="utf-8", errors="replace") != fingerprint:
            _wipe(path)
            temporary = path / (FINGERPRINT + ".part")
            temporary.write_text(fingerprint, encoding="utf-8")
            os.replace(temporary, mark)
        yield path
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a folder that this process holds. The lock file goes last, so that nobody enters a half-removed folder.
    Raises ImprintError, and leaves the folder, where the job's code was edited meanwhile: a run with the original code
    can then go on with it."""
    origin.check_code()
    _wipe(path)
    (path / LOCK).unlink()
    with suppress(OSError):  # another process has entered since the unlink, and holds the folder now
        path.rmdir()
