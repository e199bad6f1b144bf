"""`make resume`, first half: end the processes and Slurm jobs of a killed or hanging run, so that nothing writes beside
the next run.

Only what belongs to the results folder is ended: the run that holds its lock, and what the runs in its lock file have
started on this machine and on Slurm. Processes and Slurm jobs are recognised by the ids in the lock file
(`dag/run_lock.py`). A run on other results goes on, even in the same working folder. In the end snakemake's locks and
the half-written files of the killed run are removed.
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

from imprint.dag import command_line, run_lock
from imprint.dag.run_lock import Run
from imprint.runtime import processes, stages
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.identity import LEFTOVER

GRACE = 10  # seconds between SIGTERM and SIGKILL
LOGS = Path("logs/slurm")  # the profile's folder of Slurm logs; where it is missing, no run has ever used Slurm
SLURM_WAIT = 120.0  # seconds that a cancelled job may take to leave the queue


def check_place(results: str, runs: list[Run]) -> None:
    """Raise ImprintError where a run must be ended somewhere else: on its own machine, or in its own working folder."""
    lock = Path(results, run_lock.NAME)
    for run in runs:
        if run.host != socket.gethostname():
            raise ImprintError(
                f"'{results}' was taken by {run}, and what that run started may go on there; write the same `make "
                f"resume` on {run.host}. If that machine is gone for good, end the run's Slurm jobs yourself (their "
                f"names in `squeue --me` begin with {run.id}), remove {lock}, and write `make resume` here"
            )
        if run.folder != run_lock.here() and (pids := belonging([run], lock)):
            raise ImprintError(
                f"'{results}' was taken by {run}, and process {pids[0]} of that run lives; write the same `make "
                f"resume` in {run.folder}"
            )


def belonging(runs: list[Run], lock: Path) -> list[int]:
    """Ids of the processes of this machine that belong to one of the runs."""
    return [pid for pid in processes.all_mine() if any(run.owns(pid, lock) for run in runs)]


def end_processes(runs: list[Run], lock: Path) -> None:
    """End the processes of the runs: SIGTERM, a wait, then SIGKILL. Raises ImprintError where a process outlives
    that."""
    starts: dict[int, int | None] = {}  # id of a process that was signalled -> when the process began

    def alive() -> list[int]:
        # A process that is just ending has lost its environment, but still has files open.
        ending = [pid for pid, start in starts.items() if start is not None and processes.started(pid) == start]
        return sorted({*belonging(runs, lock), *ending})

    for number, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 5)):
        tried: set[int] = set()
        end = time.monotonic() + wait
        while (pids := alive()) and time.monotonic() < end:
            for pid in pids:
                if pid not in tried:
                    tried.add(pid)
                    start, command = processes.started(pid), processes.command(pid)
                    if processes.send(pid, number, lambda pid: any(run.owns(pid, lock) for run in runs)):
                        print(f"imprint.resume: ending {pid}: {shown(command[:120])}", flush=True)
                        starts[pid] = start
            time.sleep(0.1)
    if pids:
        raise ImprintError(f"process {pids[0]} outlives SIGKILL; see `ps {pids[0]}`, and write `make resume` again")


def slurm_jobs(runs: list[Run]) -> dict[str, str]:
    """Slurm job id -> job name, for the runs' jobs that are queued, running or ending. Raises ImprintError where
    `squeue` fails."""
    # Only ids and names are asked for, since comments and paths may hold line breaks.
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
    """Cancel the runs' Slurm jobs and wait until the jobs have left the queue. Raises ImprintError after
    `SLURM_WAIT`."""
    if not runs or not LOGS.is_dir() or shutil.which("squeue") is None:
        return
    end = time.monotonic() + SLURM_WAIT
    cancelled: set[str] = set()
    while jobs := slurm_jobs(runs):
        for number in jobs.keys() - cancelled:
            print(f"imprint.resume: cancelling Slurm job {number} ({jobs[number]})", flush=True)
            # By name, since the id may belong to another job by now.
            subprocess.run(["scancel", f"--user={processes.user()}", f"--jobname={jobs[number]}"], check=False)
            cancelled.add(number)
        if time.monotonic() > end:
            raise ImprintError(f"Slurm still lists {', '.join(jobs)} after {SLURM_WAIT:.0f} s; see `squeue --me`")
        time.sleep(0.5)


def clean(results: str) -> None:
    """Remove the files that a killed run has left: snakemake's locks on the results folder, the temporary files of
    `identity.atomic`, and the lines of the lock file. The results folder is held meanwhile; raises ImprintError where
    another process holds it."""
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
    for part in stages.PARTS:
        for path in (*Path(results).glob(f".{part}.*"), *Path(results, part).rglob(".*")):
            if LEFTOVER.fullmatch(path.name) and not path.is_symlink():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    run_lock.write(descriptor, [])
    os.close(descriptor)


def unlock(results: str) -> None:
    """Remove snakemake's locks on the results folder. Where no run is at work in this working folder, also remove the
    locks that name only files under resources/. (`snakemake --unlock` would remove the locks of other runs too.)"""
    alone = not run_lock.at_work()
    for lock in run_lock.LOCKS.glob("*.lock"):
        on_resources = all(path.startswith("resources/") for path in run_lock.locked(lock))
        if run_lock.covers(lock, results) or (on_resources and alone):
            lock.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> None:
    """End the runs on the results folder of a config, and clean up after them. `--configfile` and `--config` are
    snakemake's options."""
    parser = argparse.ArgumentParser(prog="python -m imprint.resume")
    command_line.add_fields(parser)
    options = parser.parse_args(arguments)
    try:
        results = command_line.experiment(options).results
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
