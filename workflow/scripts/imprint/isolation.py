"""Running code that a model wrote: in Linux namespaces of its own, without network, files, secrets or a way out.

The code runs in a process tree that has
- no network: a network namespace without any interface;
- no files but Python's own, read-only, and an empty scratch folder in memory: everything else, /etc and the home folder
  among it, is not there at all (a root of its own, the old one detached);
- no other process in sight: a process namespace whose end kills everything in it, and a parent that no signal reaches;
- no environment, no capabilities, no new privileges, and a user that owns nothing;
- limits of memory, CPU time, processes, file size and output, and a time-out.

Where the system does not allow such namespaces, nothing runs: `run` raises ImprintError.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

from imprint.errors import ImprintError

MEMORY = 1 << 30  # bytes of address space of a process
SCRATCH = 16 << 20  # bytes of the scratch folder
PROCESSES = 16
OUTPUT = 1 << 16  # bytes; more ends the run
SECONDS = 10.0  # of CPU time of a process
WALL = 3  # the time-out as a multiple of that: on a busy machine a program gets its CPU time late, and has not failed
JAIL = Path(__file__).with_name("jail.py")
READY = b"jailed\n"


class Outcome(NamedTuple):
    """What a run printed, and how it ended: "ended" (with exit status 0), "failed", "timeout" or "output"."""

    text: str
    end: str


def run(program: str, seconds: float = SECONDS, output: int = OUTPUT) -> Outcome:
    """Run Python code that may take so many `seconds` of CPU time, and WALL times as long in all; its standard output
    and errors, mixed, of at most `output` bytes."""
    limits = f"{MEMORY} {SCRATCH} {PROCESSES} {int(seconds) + 1}"
    # -I and -S: no environment, no site packages, no user folder. The interpreter itself, not a link in a venv.
    process = subprocess.Popen(
        [os.path.realpath(sys.executable), "-I", "-S", str(JAIL), limits],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        cwd="/",
        start_new_session=True,
        close_fds=True,
    )
    assert process.stdin is not None and process.stdout is not None
    deadline = time.monotonic() + WALL * seconds
    source = memoryview(program.encode("utf-8", "replace"))
    found, end = bytearray(), "timeout"
    fd_in, fd_out = process.stdin.fileno(), process.stdout.fileno()
    os.set_blocking(fd_in, False)
    try:
        while (left := deadline - time.monotonic()) > 0:
            readable, writable, _ = select.select([fd_out], [fd_in] if source else [], [], left)
            if writable:
                try:
                    source = source[os.write(fd_in, source[: 1 << 15]) :]
                except BrokenPipeError:
                    source = source[:0]
                if not source:
                    process.stdin.close()
            if readable:
                some = os.read(fd_out, 1 << 16)
                if not some:
                    end = "ended" if process.wait(max(0.01, left)) == 0 else "failed"
                    break
                found += some
                if len(found) > output:
                    end = "output"
                    break
    except subprocess.TimeoutExpired:
        end = "timeout"
    finally:
        # The jail's own process ends with its parent, and everything inside ends with the jail.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with contextlib.suppress(OSError):
            process.stdin.close()
    if not found.startswith(READY):
        raise ImprintError(
            "code that a model wrote is only run in Linux namespaces, which this system does not allow "
            f"({found[:300].decode(errors='replace').strip() or end}); allow unprivileged user namespaces "
            "(sysctl kernel.unprivileged_userns_clone=1), or leave out the evals with score: code"
        )
    return Outcome(found[len(READY) : output].decode(errors="replace"), end)


@cache
def check() -> str:
    """The isolation that runs here, for the record; raises ImprintError where there is none."""
    run("pass", 60.0)
    return "namespaces (user, mount, process, network, IPC), own root, no capabilities"
