"""One run at a time on a results folder, whoever starts it and from wherever.

Snakemake's own locks lie in its working folder. A second user does not see them, nor does a second checkout whose
`results` is a link to the same place. A run therefore holds an flock in the results folder as long as it lives. The
kernel drops the flock with the process, so it is never stale. Snakemake's own locks are stale after a kill; `hold`
says so and names the remedy.

The lock file has a line for the run, which the run removes when it ends in order. The line of a killed run stays. The
line holds the run's id, which all processes and Slurm jobs of the run carry: `make resume` finds them by it.
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

from imprint.config import loading
from imprint.runtime import processes, stages
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict

NAME = ".run.lock"
LOCKS = Path(".snakemake/locks")
DRY = re.compile(r"-[pqkF]*n[pqkF]*|--dry-?run")
"""Arguments of snakemake with which it only says what it would run."""
LOOKS = re.compile(
    rf"{DRY.pattern}|-[lSDt]|--(unlock|touch|lint|list.*|l[tcipu]|dag|rulegraph|filegraph|d3dag|summary|"
    r"detailed-summary|archive|cleanup-(metadata|shadow)|cm|report|generate-unit-tests|containerize|export-cwl|"
    r"print-compilation)(=.*)?"
)
"""Arguments of snakemake with which it runs no job."""

ID = f"imprint-{secrets.token_hex(8)}"
"""The id of the run that this process drives, if it drives one. In the profile for Slurm, the names of the run's jobs
begin with the id."""

_held: list[int] = []  # descriptors of the lock files that this process holds


class Run(Strict):
    """A run that has taken a results folder and has not ended in order. The lock file has a line of JSON for it."""

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
        """Whether a process of this machine and user is the run's driver or was started by the run. Processes of Slurm
        jobs are left out, since Slurm ends them."""
        variables = processes.environment(pid)
        if variables.get(processes.RUN) == self.id:
            return variables.get("SLURM_JOB_ID") == os.environ.get("SLURM_JOB_ID")
        # /proc shows the environment with which the driver began, and the driver has put the id into it later.
        return pid == self.pid and processes.started(pid) == self.started and processes.has_open(pid, lock)


def runs(text: str) -> list[Run]:
    """The runs in the text of a lock file; the last one holds it. Lines in any other form are skipped."""
    listed = []
    for line in text.splitlines():
        with suppress(ValidationError):
            listed.append(Run.model_validate_json(line))
    return listed


def here() -> str:
    """The working folder as text. Bytes that are not UTF-8 become escapes, so that it can be written in any locale."""
    return os.fsencode(Path.cwd()).decode("utf-8", "backslashreplace")


def write(descriptor: int, kept: list[Run]) -> None:
    """Replace the content of a lock file by the lines of the runs `kept`."""
    text = "".join(f"{run.model_dump_json()}\n" for run in kept).encode()
    os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))


def read(descriptor: int) -> list[Run]:
    """The runs in an open lock file."""
    return runs(os.pread(descriptor, 2**20, 0).decode(errors="replace"))


def dry(argv: list[str]) -> bool:
    """Whether snakemake only says what it would run."""
    return any(DRY.fullmatch(word) for word in argv)


def changes(argv: list[str]) -> bool:
    """Whether snakemake runs jobs with these arguments. If this guesses wrong, Snakemake's own locks still hold; only
    our clearer message is lost."""
    return not any(LOOKS.fullmatch(word) for word in argv)


def resume(argv: list[str]) -> str:
    """The command that goes on with a killed run; `argv` are the arguments of snakemake that started the run."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", default="")
    parser.add_argument("--configfile", "--configfiles", nargs="+", default=[])
    parser.add_argument("--config", "-C", nargs="*", default=[])
    options, _ = parser.parse_known_args(argv)
    variables = {
        "PROFILE": options.profile,
        "CONFIG": shlex.join(options.configfile),
        "SET": shlex.join(options.config),
    }
    if Path(variables["CONFIG"]) == loading.DEFAULT:
        del variables["CONFIG"]
    return shlex.join(["make", "resume", *(f"{name}={value}" for name, value in variables.items() if value)])


def at_work() -> list[int]:
    """Ids of the processes that runs in this working folder have started, whichever results folder they write."""
    pids = processes.all_mine()
    return [pid for pid in pids if processes.folder(pid) == Path.cwd() and processes.RUN in processes.environment(pid)]


def refuse_while_running() -> None:
    """Raise ImprintError while a run goes on in this working folder, whichever results folder it writes: all runs share
    resources/models."""
    # The locks alone are not enough: when one run ends, snakemake removes the locks of all runs in the folder.
    signs = [*map(str, sorted(LOCKS.glob("*.lock"))), *(f"process {pid}" for pid in at_work())]
    if signs:
        raise ImprintError(
            f"a run is going on in this folder, or was killed and has left {signs[0]}; wait until it ends, or write "
            "`make resume` with the CONFIG, PROFILE and SET that it was started with"
        )


def hold(results: str) -> None:
    """Hold the results folder until this process ends, and put the run's id into the environment. Raises ImprintError
    where another run holds the folder, where a killed run has left snakemake's lock behind, and where the folder cannot
    be written."""
    path, command = Path(results, NAME), resume(sys.argv[1:])
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
            f"one a `results:` folder of its own. If that run hangs, `{command}` in its folder ends it and goes on"
        ) from None
    if stale := [lock for lock in sorted(LOCKS.glob("*.lock")) if covers(lock, results)]:
        os.close(descriptor)
        raise ImprintError(
            f"a run on '{results}' was killed and has left its lock behind ({stale[0]}); write "
            f"`{command}`, which ends what that run left running, here and on Slurm, unlocks, and goes on where it was"
        )
    own = Run(
        id=ID,
        pid=os.getpid(),
        started=processes.started(os.getpid()),
        host=socket.gethostname(),
        user=processes.user(),
        folder=here(),
        since=time.strftime("%F %T"),
    )
    try:
        # Processes of a killed run may live on, so the lines of earlier runs stay until `make resume`.
        write(descriptor, [*read(descriptor), own])
    except OSError as error:
        os.close(descriptor)
        raise ImprintError(f"results: '{results}' cannot be written ({error.strerror}); free some space") from error
    os.environ[processes.RUN] = ID
    if not _held:
        atexit.register(_leave)
    _held.append(descriptor)


def _leave() -> None:
    """Remove this run's lines from the lock files, unless a process that the run started is still alive."""
    if any(processes.environment(pid).get(processes.RUN) == ID for pid in processes.all_mine()):
        return
    for descriptor in _held:
        with suppress(OSError):
            write(descriptor, [run for run in read(descriptor) if run.id != ID])


def locked(lock: Path) -> list[str]:
    """The files that one of snakemake's lock files names; none where its run has just ended."""
    try:
        return lock.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def covers(lock: Path, results: str) -> bool:
    """Whether one of snakemake's lock files names a file of the results folder. Files of another results folder inside
    it, such as results/real, do not count."""
    below = [path.removeprefix(f"{results}/") for path in locked(lock) if path.startswith(f"{results}/")]
    return any(path.split("/")[0] in stages.PARTS for path in below)
