"""Running untrusted programs, such as code that a model wrote, in Linux namespaces without network, files or secrets.

The program is one process in a jail (`imprint.scoring.jail`), or a worker that forks a child for each call. It has
- no network: a network namespace without interfaces, and no sockets except pairs within the program;
- no files except Python's own and the folders in `readable`, all read-only. Nothing else exists for it, neither /etc
  nor the home folder: it has a root of its own, and the old root is detached. The scratch folder is in memory;
- no other processes: it sees none, and neither it nor a worker's child can start or signal one. Everything in the jail
  ends with it;
- no environment, no capabilities, no new privileges, and a user that owns nothing. A seccomp filter refuses the system
  calls that could reach beyond this: keyrings, shared memory, namespaces, bpf, io_uring;
- limits of memory, CPU time, threads, files, file size and output, and a time-out.

On a system that does not allow such namespaces nothing runs, and ImprintError is raised.

Bubblewrap would build the same namespaces and mounts. But it is not a Python package and not on every cluster, it needs
a compiled seccomp filter, and it sets no limits, so half of this code would remain.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from imprint.runtime.errors import ImprintError
from imprint.scoring import jail

MEMORY = 1 << 30  # bytes of address space
SCRATCH = 16 << 20  # bytes of the scratch folder
OUTPUT = 1 << 16  # bytes; more ends the run
SECONDS = 10.0  # CPU time
WALL = 3  # the time-out by the clock, as a multiple of the CPU time, which a busy machine gives late
JAIL = Path(jail.__file__)
READY = b"jailed\n"
"""The first line of a jail's output, before the program's own."""


class Outcome(NamedTuple):
    """What a run printed, and how it ended: "ended" (with exit status 0), "failed", "timeout" or "output" (too
    much)."""

    text: str
    end: str


def start(
    arguments: Sequence[str], *, memory: int, scratch: int, cpu: int, processes: bool, readable: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start Python in a jail; `jail.Plan` explains the parameters. Its standard output, which has its errors too,
    begins with READY. The jail ends with this process."""
    plan = jail.Plan(memory, scratch, cpu, processes, list(readable), list(arguments))
    # -I: no environment variables; -S: no site packages. realpath: a link in a venv would not exist in the jail.
    return subprocess.Popen(
        [os.path.realpath(sys.executable), "-I", "-S", str(JAIL), json.dumps(plan)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        cwd="/",
        start_new_session=True,
        close_fds=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its session, and all of its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe.close()  # type: ignore[union-attr]


def missing(output: bytes) -> ImprintError:
    """The error for a system without jails; `output` is what the jail printed."""
    return ImprintError(
        "code that a model wrote, and checkers that evaluate what a model wrote, only run in Linux namespaces, which "
        f"this system does not allow ({output[:300].decode(errors='replace').strip() or 'it did not answer'}); allow "
        "unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces=10000), or "
        "leave out what is scored by code, math or reasoning_gym"
    )


def run(program: str, seconds: float = SECONDS, output: int = OUTPUT) -> Outcome:
    """Run Python code for at most `seconds` of CPU time, and WALL times as long by the clock. The outcome holds its
    standard output and errors, mixed, of at most `output` bytes. Raises ImprintError on a system without jails."""
    process = start(["-"], memory=MEMORY, scratch=SCRATCH, cpu=int(seconds) + 1, processes=False)
    assert process.stdin is not None and process.stdout is not None
    deadline = time.monotonic() + WALL * seconds
    source = memoryview(program.encode("utf-8", "replace"))
    printed, ending = bytearray(), "timeout"
    fd_in, fd_out = process.stdin.fileno(), process.stdout.fileno()
    os.set_blocking(fd_in, False)
    try:
        while (seconds_left := deadline - time.monotonic()) > 0:
            readable, writable, _ = select.select([fd_out], [fd_in] if source else [], [], seconds_left)
            if writable:
                try:
                    source = source[os.write(fd_in, source[: 1 << 15]) :]
                except BrokenPipeError:
                    source = source[:0]
                if not source:
                    process.stdin.close()
            if readable:
                piece = os.read(fd_out, 1 << 16)
                if not piece:
                    ending = "ended" if process.wait(max(0.01, seconds_left)) == 0 else "failed"
                    break
                printed += piece
                if len(printed) > output:
                    ending = "output"
                    break
    except subprocess.TimeoutExpired:
        ending = "timeout"
    finally:
        end(process)
    if not printed.startswith(READY):
        raise missing(bytes(printed))
    return Outcome(printed[len(READY) : output].decode(errors="replace"), ending)


@cache
def check() -> str:
    """The isolation on this machine in words, for the tables. Raises ImprintError on a system without jails."""
    run("pass", 60.0)
    return "namespaces (user, mount, process, network, IPC), own root, no capabilities, seccomp"
