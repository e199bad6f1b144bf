"""`make resume`, first half: end the jobs that a killed run left behind, so that none of them writes beside the next.

On this machine a job of this project is a process whose working folder is the project's and which runs snakemake or one
of its scripts. On Slurm it is a job of ours with that working folder: it is cancelled there, and waited for.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE = 10  # seconds between asking and killing
LOGS = Path("logs/slurm")  # where the profile has the executor write; without it the project has never been on Slurm
SLURM_WAIT = 120.0  # seconds a cancelled job may take to leave the queue


def orphans(project: Path) -> dict[int, str]:
    """Process id -> command line of what runs here and is neither this process, nor one of its ancestors, nor part of a
    Slurm job. A process that is just ending has no command line any more and still counts."""
    mine = {os.getpid()}
    pid = os.getpid()
    while pid > 1:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        pid = int(stat.rpartition(")")[2].split()[1])
        mine.add(pid)
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in mine:
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            here = (entry / "cwd").resolve(strict=True) == project
            slurm = [
                word for word in (entry / "environ").read_bytes().split(b"\0") if word.startswith(b"SLURM_JOB_ID=")
            ]
        except OSError:
            continue  # it ended, or it is somebody else's
        words = command.split()
        ours = not slurm or slurm[0].split(b"=")[1].decode() == os.environ.get("SLURM_JOB_ID")
        if here and ours and (not words or ("python" in Path(words[0]).name and "snakemake" in command)):
            found[int(entry.name)] = command or "(already ending)"
    return found


def slurm_jobs(project: Path) -> dict[str, str]:
    """Slurm job id -> comment of our jobs with this working folder that are queued, running or ending."""
    command = ["squeue", "--me", "--noheader", "--format=%i|%Z|%k"]
    listed = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if listed.returncode != 0:
        sys.exit(
            f"imprint.resume: this project has run on Slurm ({LOGS} is there), but `squeue` fails: "
            f"{listed.stderr.strip()}; run this where Slurm can be asked, or remove {LOGS} if no job of it can be left"
        )
    found = {}
    for line in listed.stdout.splitlines():
        number, folder, comment = line.split("|", 2)
        if Path(folder).resolve() == project:
            found[number] = comment
    return found


def cancel_slurm_jobs(project: Path) -> None:
    """Cancel this project's Slurm jobs and wait until they have left the queue."""
    if not LOGS.is_dir() or shutil.which("squeue") is None:
        return
    end = time.monotonic() + SLURM_WAIT
    told: set[str] = set()
    while left := slurm_jobs(project):
        for number in left.keys() - told:
            print(f"imprint.resume: cancelling Slurm job {number} ({left[number]})", flush=True)
            subprocess.run(["scancel", number], check=False)
            told.add(number)
        if time.monotonic() > end:
            sys.exit(f"imprint.resume: Slurm still lists {', '.join(left)} after {SLURM_WAIT:.0f} s; see `squeue --me`")
        time.sleep(0.5)


def main() -> None:
    """End the driver and its jobs here: ask, wait, kill what did not; then cancel what is on Slurm."""
    project = Path.cwd().resolve()
    left = orphans(project)
    for signal_number, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 2)):
        for pid, command in left.items():
            print(f"imprint.resume: ending {pid}: {command[:120]}")
            try:
                os.kill(pid, signal_number)
            except ProcessLookupError:
                continue
        end = time.monotonic() + wait
        while left and time.monotonic() < end:
            time.sleep(0.2)
            left = orphans(project)
    cancel_slurm_jobs(project)


if __name__ == "__main__":
    main()
