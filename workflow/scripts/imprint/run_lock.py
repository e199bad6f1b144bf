"""One run at a time on a results folder, whoever starts it and from wherever.

Snakemake locks the files of its own working folder; a second user, or a second checkout whose `results` is a link to
the same place, would not see that. A run therefore holds an flock in the results folder as long as it lives. The kernel
drops it with the process, so it is never stale; snakemake's own locks are, after a kill, and that is said here too.

The lock file has a line for the run, which the run takes away when it ends in order. The line of a killed run stays,
and with it the id that all processes and Slurm jobs of the run carry: `make resume` knows them by it.
"""

from __future__ import annotations

import argparse
import atexit
import fcntl
import os
import re
import secrets
import shlex
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from pydantic import Field, ValidationError

from imprint import config as configs
from imprint import processes
from imprint.errors import ImprintError
from imprint.plugins import Strict

NAME = ".run.lock"
LOCKS = Path(".snakemake/locks")
LOOKS = re.compile(
    r"-[pqkF]*n[pqkF]*|-[lSD]|--(dry-?run|unlock|touch|lint|list.*|dag|rulegraph|filegraph|d3dag|summary|"
    r"detailed-summary|archive|cleanup-.*|report|generate-unit-tests|containerize|export-cwl|print-compilation)(=.*)?"
)
"""Arguments of snakemake under which it runs no job."""

ID = f"imprint-{secrets.token_hex(8)}"
"""Of the run that this process drives, if it drives one. The profile for Slurm begins the names of its jobs with it."""

_held: list[int] = []


class Run(Strict):
    """A run that took a results folder, and has not ended in order: a line of the lock file, in JSON."""

    id: str = Field(pattern=r"^imprint-[0-9a-f]{16}$")
    pid: int = Field(ge=1)
    started: int | None
    host: str
    user: str
    folder: str
    since: str

    def __str__(self) -> str:
        return f"{self.user} on {self.host}, process {self.pid}, in {self.folder}, since {self.since}"

    def owns(self, pid: int, lock: Path) -> bool:
        """Whether a process of this machine and user is the run's driver, or was started by the run and not in a Slurm
        job: Slurm ends its own processes."""
        variables = processes.environment(pid)
        if variables.get(processes.RUN) == self.id:
            return variables.get("SLURM_JOB_ID") == os.environ.get("SLURM_JOB_ID")
        # The environment under /proc is the first one, before the driver put the id into it.
        return pid == self.pid and processes.started(pid) == self.started and processes.has_open(pid, lock)


def runs(text: str) -> list[Run]:
    """The runs in a lock file, the one that holds it last; lines that no run wrote are passed over."""
    lines = []
    for line in text.splitlines():
        with suppress(ValidationError):
            lines.append(Run.model_validate_json(line))
    return lines


def here() -> str:
    """The working folder, as text that can be written whatever the locale makes of its name."""
    return os.fsencode(Path.cwd()).decode("utf-8", "backslashreplace")


def write(descriptor: int, kept: list[Run]) -> None:
    """Put the lines of these runs into a lock file, in the place of all that is there."""
    text = "".join(f"{run.model_dump_json()}\n" for run in kept).encode()
    os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))


def read(descriptor: int) -> list[Run]:
    """The runs in an open lock file."""
    return runs(os.pread(descriptor, 2**20, 0).decode(errors="replace"))


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


def at_work() -> list[int]:
    """Ids of the processes that a run in this folder has started, on whichever results."""
    mine = processes.all_mine()
    return [pid for pid in mine if processes.folder(pid) == Path.cwd() and processes.RUN in processes.environment(pid)]


def refuse_while_running() -> None:
    """Raise ImprintError while snakemake works in this folder, on whichever results: all share resources/models."""
    # Locks alone do not tell: when one run ends, snakemake removes the locks of all runs in the folder.
    signs = [*map(str, sorted(LOCKS.glob("*.lock"))), *(f"process {pid}" for pid in at_work())]
    if signs:
        raise ImprintError(
            f"a run is going on in this folder, or was killed and has left {signs[0]}; wait until it ends, or write "
            "`make resume` with the CONFIG, PROFILE and SET that it was started with"
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
        holder = next((str(run) for run in reversed(read(descriptor))), "another run")
        os.close(descriptor)
        raise ImprintError(
            f"results: '{results}' is being written by {holder}; one run at a time: wait until it ends, or give this "
            f"one a `results:` folder of its own. If that run hangs, `{again}` in its folder ends it and goes on"
        ) from None
    if stale := [lock for lock in sorted(LOCKS.glob("*.lock")) if names(lock, results)]:
        os.close(descriptor)
        raise ImprintError(
            f"a run on '{results}' was killed and has left its lock behind ({stale[0]}); write "
            f"`{again}`, which ends what that run left running, here and on Slurm, unlocks, and goes on where it was"
        )
    mine = Run(
        id=ID,
        pid=os.getpid(),
        started=processes.started(os.getpid()),
        host=socket.gethostname(),
        user=processes.user(),
        folder=here(),
        since=time.strftime("%F %T"),
    )
    try:
        # What a killed run started may live on, so its line stays until `make resume`.
        write(descriptor, [*read(descriptor), mine])
    except OSError as error:
        os.close(descriptor)
        raise ImprintError(f"results: '{results}' cannot be written ({error.strerror}); free some space") from error
    os.environ[processes.RUN] = ID
    if not _held:
        atexit.register(_leave)
    _held.append(descriptor)


def _leave() -> None:
    """Take this run's lines away, unless a process that it started has outlived it."""
    if any(processes.environment(pid).get(processes.RUN) == ID for pid in processes.all_mine()):
        return
    for descriptor in _held:
        with suppress(OSError):
            write(descriptor, [run for run in read(descriptor) if run.id != ID])


def locked(lock: Path) -> list[str]:
    """The files that one of snakemake's lock files is for; none where its run has just ended."""
    try:
        return lock.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def names(lock: Path, results: str) -> bool:
    """Whether one of snakemake's lock files names a file of the results folder (a file of a results folder inside it,
    such as results/real, is none)."""
    below = [path.removeprefix(f"{results}/") for path in locked(lock) if path.startswith(f"{results}/")]
    return any(path.split("/")[0] in configs.PARTS for path in below)
