"""Work folders: where a job keeps what it has finished, so that a killed job goes on instead of starting again.

A folder belongs to one piece of work, named by a fingerprint; when the work changes, the folder is emptied. It is held
by an flock, which the kernel drops when its holder dies, however it dies: a leftover lock file stops nobody, and a job
that survived its killed workflow can never write together with the one that replaces it.
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

from imprint import origin
from imprint.errors import ImprintError
from imprint.identity import file_sha256

LOCK = ".lock"
FINGERPRINT = ".fingerprint"
WAIT = 60.0


def _open_locked(path: Path, wait: float) -> int:
    """A file descriptor that holds the lock of the folder as it is on disk now. The folder may be removed by its former
    holder while we wait; then the lock we got is that of a removed file, and we start again."""
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
    """Remove all but the lock; the fingerprint first, so that a kill in between leaves a folder that is wiped again."""
    (path / FINGERPRINT).unlink(missing_ok=True)
    for entry in path.iterdir():
        if entry.name == LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def sums(files: Iterable[Path]) -> dict[str, str]:
    """File -> sha256, by its whole path: a package has many files of one name, such as `__init__.py`."""
    return {str(file): file_sha256(file) for file in files}


@contextmanager
def folder(path: Path, fingerprint: str, wait: float = WAIT) -> Iterator[Path]:
    """Hold `path` for the work called `fingerprint`. What is in it stays if it was made by the same work, and is
    removed if not. Waits up to `wait` seconds for another holder, then raises ImprintError saying who holds it. The
    folder outlives the block, so that a later attempt can go on; call `remove` inside the block when the work is
    done."""
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
    Where the job's code was edited meanwhile the folder stays, for the run that finds the code as it was."""
    origin.check_code()
    _wipe(path)
    (path / LOCK).unlink()
    with suppress(OSError):  # another process has entered in between, and the folder is now its own
        path.rmdir()
