"""One run at a time on a results folder, whoever starts it and from wherever.

Snakemake locks the files of its own working folder; a second user, or a second checkout whose `results` is a link to
the same place, would not see that. A run therefore holds an flock in the results folder as long as it lives. The kernel
drops it with the process, so it is never stale; snakemake's own locks are, after a kill, and that is said here too.
"""

from __future__ import annotations

import argparse
import fcntl
import getpass
import os
import re
import shlex
import socket
import sys
import time
from pathlib import Path

from imprint import config as configs
from imprint.errors import ImprintError

NAME = ".run.lock"
LOCKS = Path(".snakemake/locks")
LOOKS = re.compile(
    r"-[pqkF]*n[pqkF]*|-[lSD]|--(dry-?run|unlock|touch|lint|list.*|dag|rulegraph|filegraph|d3dag|summary|"
    r"detailed-summary|archive|cleanup-.*|report|generate-unit-tests|containerize|export-cwl|print-compilation)(=.*)?"
)
"""Arguments of snakemake under which it runs no job."""

_held: list[int] = []


def changes(argv: list[str]) -> bool:
    """Whether a command line of snakemake runs jobs. A wrong answer costs a clear message, not the locking itself."""
    return not any(LOOKS.fullmatch(word) for word in argv)


def resume(argv: list[str]) -> str:
    """The command that goes on with a killed run that was started with these arguments of snakemake."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", default="")
    parser.add_argument("--configfile", "--configfiles", nargs="+", default=[])
    parser.add_argument("--config", "-C", nargs="*", default=[])
    given, _ = parser.parse_known_args(argv)
    parts = {"PROFILE": given.profile, "CONFIG": shlex.join(given.configfile), "SET": shlex.join(given.config)}
    if Path(parts["CONFIG"]) == configs.DEFAULT:
        del parts["CONFIG"]
    return shlex.join(["make", "resume", *(f"{name}={value}" for name, value in parts.items() if value)])


def refuse_while_running() -> None:
    """Raise ImprintError while snakemake works in this folder, on whichever results: all share resources/models."""
    if locks := sorted(LOCKS.glob("*.lock")):
        raise ImprintError(
            f"a run is going on in this folder, or was killed and has left its lock behind ({locks[0]}); wait until it "
            "ends, or write `make resume`"
        )


def hold(results: str) -> None:
    """Hold the results folder until this process ends. Raises ImprintError where another run holds it, where a killed
    run has left snakemake's lock behind, and where nothing can be written."""
    path, again = Path(results, NAME), resume(sys.argv[1:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ImprintError(
            f"results: '{results}' cannot be written ({error.strerror}: {error.filename}); make it writable, free some "
            "space, or write another `results:` folder"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 500, 0).decode(errors="replace").strip() or "another run"
        os.close(descriptor)
        raise ImprintError(
            f"results: '{results}' is being written by {holder}; one run at a time: wait until it ends, or give this "
            f"one a `results:` folder of its own. If that run hangs, `{again}` in its folder ends it and goes on"
        ) from None
    if stale := [lock for lock in sorted(LOCKS.glob("*.lock")) if _names(lock, results)]:
        os.close(descriptor)
        raise ImprintError(
            f"a run on '{results}' was killed and has left its lock behind ({stale[0]}); write "
            f"`{again}`, which ends what that run left running, here and on Slurm, unlocks, and goes on where it was"
        )
    who = f"{getpass.getuser()} on {socket.gethostname()}, process {os.getpid()}"
    line = f"{who}, in {Path.cwd()}, since {time.strftime('%F %T')}\n"
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, line.encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise ImprintError(f"results: '{results}' cannot be written ({error.strerror}); free some space") from error
    _held.append(descriptor)


def _names(lock: Path, results: str) -> bool:
    """Whether one of snakemake's lock files names a file of the results folder."""
    try:
        lines = lock.read_text(encoding="utf-8", errors="replace").splitlines()
        return any(line.startswith(f"{results}/") for line in lines)
    except OSError:
        return False
