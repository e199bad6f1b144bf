"""Processes of this machine and user: which run started them, and signals that reach no other process.

A run puts its id into its environment (`imprint/run_lock.py`), so every process that it starts carries the id, however
long it outlives the run. Linux shows the environment that a process began with under /proc.
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
    """Ids of the processes of this user, but for this one."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # it ended meanwhile
            if entry.name.isdigit() and int(entry.name) != os.getpid() and entry.stat().st_uid == os.getuid():
                yield int(entry.name)


def user() -> str:
    """The name of this process's user, or the number where it has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def environment(pid: int) -> dict[str, str]:
    """The environment that a process began with; nothing where it has ended or may not be read."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def started(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine did. None where it has ended."""
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
    """The working folder of a process."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def command(pid: int) -> str:
    """The command line of a process, for people; empty where it is just ending."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def send(pid: int, number: signal.Signals, belongs: Callable[[int], bool]) -> bool:
    """Signal a process if it still belongs. The handle stands for the process that had the id when it was opened, so
    a process that takes over the id is never hit. Says whether the signal was sent."""
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
