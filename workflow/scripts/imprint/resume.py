"""`make resume`, first half: end what a run left behind or hangs in, so that nothing writes beside the next run.

Only what belongs to the results folder is ended: the run that holds its lock, and what its runs started, here and on
Slurm, known by the ids in the lock file (`imprint/run_lock.py`). A run on other results goes on, even in the same
working folder. Then snakemake's locks and the half-written files of the killed run are removed.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from imprint import config as configs
from imprint import processes, run_lock
from imprint.errors import ImprintError, shown
from imprint.experiment import Experiment
from imprint.identity import LEFTOVER
from imprint.run_lock import Run
from imprint.start import overrides

GRACE = 10  # seconds between asking and killing
LOGS = Path("logs/slurm")  # where the profile has the executor write; without it the project has never been on Slurm
SLURM_WAIT = 120.0  # seconds a cancelled job may take to leave the queue


def check_place(results: str, runs: list[Run]) -> None:
    """Raise ImprintError where a run can only be ended elsewhere: on its machine, or in its working folder."""
    lock = Path(results, run_lock.NAME)
    for run in runs:
        if run.host != socket.gethostname():
            raise ImprintError(
                f"'{results}' was taken by {run}, and what that run started may go on there; write the same `make "
                f"resume` on {run.host}. If that machine is gone for good, end the run's Slurm jobs yourself (their "
                f"names in `squeue --me` begin with {run.id}), remove {lock}, and write `make resume` here"
            )
        if run.folder != run_lock.here() and (left := belonging([run], lock)):
            raise ImprintError(
                f"'{results}' was taken by {run}, and process {left[0]} of that run lives; write the same `make "
                f"resume` in {run.folder}"
            )


def belonging(runs: list[Run], lock: Path) -> list[int]:
    """Ids of the processes here that belong to one of the runs."""
    return [pid for pid in processes.all_mine() if any(run.owns(pid, lock) for run in runs)]


def end_processes(runs: list[Run], lock: Path) -> None:
    """Ask, wait, kill what did not end. Raises ImprintError where something outlives that."""
    began: dict[int, int | None] = {}

    def left() -> list[int]:
        # A process that is just ending has lost its environment, and still has files open.
        ending = [pid for pid, start in began.items() if start is not None and processes.started(pid) == start]
        return sorted({*belonging(runs, lock), *ending})

    for number, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 5)):
        told: set[int] = set()
        end = time.monotonic() + wait
        while (pids := left()) and time.monotonic() < end:
            for pid in pids:
                if pid not in told:
                    told.add(pid)
                    start, command = processes.started(pid), processes.command(pid)
                    if processes.send(pid, number, lambda pid: any(run.owns(pid, lock) for run in runs)):
                        print(f"imprint.resume: ending {pid}: {shown(command[:120])}", flush=True)
                        began[pid] = start
            time.sleep(0.1)
    if pids:
        raise ImprintError(f"process {pids[0]} outlives SIGKILL; see `ps {pids[0]}`, and write `make resume` again")


def slurm_jobs(runs: list[Run]) -> dict[str, str]:
    """Slurm job id -> name of the runs' jobs that are queued, running or ending."""
    # Nothing else is asked for: comments and paths may hold line breaks.
    command = ["squeue", "--me", "--noheader", "--format=%i|%j"]
    listed = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if listed.returncode != 0:
        raise ImprintError(
            f"this project has run on Slurm ({LOGS} is there), but `squeue` fails: {listed.stderr.strip()}; run this "
            f"where Slurm can be asked, or remove {LOGS} if no job of it can be left"
        )
    name = rf"(?:{'|'.join(run.id for run in runs)})_[\w-]+"
    matches = (re.fullmatch(rf"([^|]+)\|({name})", line) for line in listed.stdout.splitlines())
    return {match[1]: match[2] for match in matches if match}


def cancel_slurm_jobs(runs: list[Run]) -> None:
    """Cancel the runs' Slurm jobs and wait until they have left the queue."""
    if not runs or not LOGS.is_dir() or shutil.which("squeue") is None:
        return
    end = time.monotonic() + SLURM_WAIT
    told: set[str] = set()
    while left := slurm_jobs(runs):
        for number in left.keys() - told:
            print(f"imprint.resume: cancelling Slurm job {number} ({left[number]})", flush=True)
            # By name: an id could be another job's by now.
            subprocess.run(["scancel", f"--user={processes.user()}", f"--jobname={left[number]}"], check=False)
            told.add(number)
        if time.monotonic() > end:
            raise ImprintError(f"Slurm still lists {', '.join(left)} after {SLURM_WAIT:.0f} s; see `squeue --me`")
        time.sleep(0.5)


def clean(results: str) -> None:
    """Remove what a killed run left in files, while no run holds the results folder: snakemake's locks on it, the
    temporary files of `identity.atomic`, and its line in the lock file."""
    lock = Path(results, run_lock.NAME)
    descriptor = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = next((str(run) for run in reversed(run_lock.read(descriptor))), f"a process that {lock} does not name")
        os.close(descriptor)
        raise ImprintError(
            f"'{results}' is still held by {holder}; wait until that process ends, or end it yourself (`fuser {lock}` "
            "shows it), and write `make resume` again"
        ) from None
    unlock(results)
    for part in configs.PARTS:
        for path in (*Path(results).glob(f".{part}.*"), *Path(results, part).rglob(".*")):
            if LEFTOVER.fullmatch(path.name) and not path.is_symlink():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    run_lock.write(descriptor, [])
    os.close(descriptor)


def unlock(results: str) -> None:
    """Remove snakemake's locks on the results folder, and, where no other run is at work in this folder, those that are
    on no results at all. `snakemake --unlock` would remove those of other runs too."""
    alone = not run_lock.at_work()
    for lock in run_lock.LOCKS.glob("*.lock"):
        shared = all(path.startswith("resources/") for path in run_lock.locked(lock))
        if run_lock.names(lock, results) or (shared and alone):
            lock.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> None:
    """End the driver and its jobs on the results folder of a config; `--configfile` and `--config` are snakemake's."""
    from snakemake.cli import parse_config

    parser = argparse.ArgumentParser(prog="python -m imprint.resume")
    parser.add_argument("--configfile", nargs="+", type=Path, default=[configs.DEFAULT])
    parser.add_argument("--config", nargs="*", default=[])
    options = parser.parse_args(arguments)
    try:
        results = Experiment(configs.load(options.configfile, overrides(parse_config(options.config)))).results
        lock = Path(results, run_lock.NAME)
        if lock.is_file():
            runs = run_lock.runs(lock.read_text(encoding="utf-8", errors="replace"))
            check_place(results, runs)
            end_processes(runs, lock)
            cancel_slurm_jobs(runs)
            clean(results)
        else:
            unlock(results)
    except (ImprintError, ValueError) as error:
        sys.exit(f"imprint.resume: {shown(error)}")


if __name__ == "__main__":
    main()
