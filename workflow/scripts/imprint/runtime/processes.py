"""Processes of this machine and user: which run started a process, and signals that reach no other process.

A run puts its id into its environment (`dag/run_lock.py`). Every process that the run starts inherits the id, and keeps
it when the run has ended. Linux shows the environment with which a process began in /proc.
"""

from __future__ import annotations

import getpass
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

RUN = "IMPRINT_RUN"


def all_mine() -> Iterator[int]:
    """Ids of this user's processes, without the calling process."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # the process has ended meanwhile
            if entry.name.isdigit() and int(entry.name) != os.getpid() and entry.stat().st_uid == os.getuid():
                yield int(entry.name)


def user() -> str:
    """The name of this process's user; the user's number where it has no name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def environment(pid: int) -> dict[str, str]:
    """The environment with which a process began; empty where the process has ended or may not be read."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def started(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine started; None where the process has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if link.samefile(path):
                    return True
    return False


def folder(pid: int) -> Path | None:
    """The working folder of a process; None where the process has ended or may not be read."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def command(pid: int) -> str:
    """The command line of a process, to be shown to a person; empty where the process is ending."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def send(pid: int, number: signal.Signals, belongs: Callable[[int], bool]) -> bool:
    """Send a signal to a process if `belongs(pid)` is still true; returns whether it was sent. The handle (pidfd) is
    opened before `belongs` is asked, so a process that takes over the id later is never hit."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not belongs(pid):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
