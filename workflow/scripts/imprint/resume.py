"""`make resume`, first half: end the jobs that a killed run left behind, so that none of them writes beside the next.

A job of this project is a process whose working folder is the project's and which runs snakemake or one of its scripts.
Jobs on a cluster are the cluster's to cancel: they are named, with the command that does it.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

GRACE = 10  # seconds between asking and killing


def orphans(project: Path) -> dict[int, str]:
    """Process id -> command line of what runs here and is neither this process nor one of its ancestors."""
    mine = {os.getpid()}
    pid = os.getpid()
    while pid > 1:
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat.rpartition(")")[2].split()[1])
        mine.add(pid)
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in mine:
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            here = (entry / "cwd").resolve(strict=True) == project
        except OSError:
            continue  # it ended, or it is somebody else's
        words = command.split()
        if here and words and "python" in Path(words[0]).name and ("snakemake" in command):
            found[int(entry.name)] = command
    return found


def main() -> None:
    """Ask them to end, wait, kill those that did not."""
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
        if not left:
            return


if __name__ == "__main__":
    main()
