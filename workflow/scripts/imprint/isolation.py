"""Running what cannot be trusted, such as code that a model wrote: in Linux namespaces of its own, without network,
files, secrets or a way out.

The program is one process in a jail (`imprint.jail`), or a worker that forks a child for each call, and has
- no network: a network namespace without any interface, and no socket but a pair within the program;
- no files but Python's own, and the folders that it is given to read, all read-only: everything else, /etc and the home
  folder among it, is not there at all (a root of its own, the old one detached). The scratch folder is in memory;
- no other process in sight, and none that it (or the worker's child) can start or signal; when it ends, so does
  everything in the jail;
- no environment, no capabilities, no new privileges, a user that owns nothing, and none of the system calls that reach
  past all this (keyrings, shared memory, namespaces, bpf, io_uring: a seccomp filter);
- limits of memory, CPU time, threads, files, file size and output, and a time-out.

Where the system does not allow such namespaces, nothing runs: ImprintError is raised.

Bubblewrap would build the same namespaces and mounts. It is not among Python's packages and not on every cluster, it
takes a compiled seccomp filter instead of making one, and it knows no limits, so half of this would remain.
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

from imprint import jail
from imprint.errors import ImprintError

MEMORY = 1 << 30  # bytes of address space
SCRATCH = 16 << 20  # bytes of the scratch folder
OUTPUT = 1 << 16  # bytes; more ends the run
SECONDS = 10.0  # of CPU time
WALL = 3  # the time-out as a multiple of that: on a busy machine a program gets its CPU time late, and has not failed
JAIL = Path(jail.__file__)
READY = b"jailed\n"
"""What a jail says before its program does."""


class Outcome(NamedTuple):
    """What a run printed, and how it ended: "ended" (with exit status 0), "failed", "timeout" or "output"."""

    text: str
    end: str


def start(
    arguments: Sequence[str], *, memory: int, scratch: int, cpu: int, processes: bool, readable: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start Python with some arguments in a jail, as `jail.Plan` says; READY comes first on its standard output, which
    has its errors too. The jail ends with this process."""
    plan = jail.Plan(memory, scratch, cpu, processes, list(readable), list(arguments))
    # -I and -S: no environment, no site packages. The interpreter itself, not a link in a venv.
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
    """Kill a process that was started as the leader of its session, with all of its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe.close()  # type: ignore[union-attr]


def missing(said: bytes) -> ImprintError:
    """The error that there is no jail here, with what the system said."""
    return ImprintError(
        "code that a model wrote, and checkers that evaluate what a model wrote, only run in Linux namespaces, which "
        f"this system does not allow ({said[:300].decode(errors='replace').strip() or 'it did not answer'}); allow "
        "unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces=10000), or "
        "leave out what is scored by code, math or reasoning_gym"
    )


def run(program: str, seconds: float = SECONDS, output: int = OUTPUT) -> Outcome:
    """Run Python code that may take so many `seconds` of CPU time, and WALL times as long in all; its standard output
    and errors, mixed, of at most `output` bytes."""
    process = start(["-"], memory=MEMORY, scratch=SCRATCH, cpu=int(seconds) + 1, processes=False)
    assert process.stdin is not None and process.stdout is not None
    deadline = time.monotonic() + WALL * seconds
    source = memoryview(program.encode("utf-8", "replace"))
    printed, how = bytearray(), "timeout"
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
                piece = os.read(fd_out, 1 << 16)
                if not piece:
                    how = "ended" if process.wait(max(0.01, left)) == 0 else "failed"
                    break
                printed += piece
                if len(printed) > output:
                    how = "output"
                    break
    except subprocess.TimeoutExpired:
        how = "timeout"
    finally:
        end(process)
    if not printed.startswith(READY):
        raise missing(bytes(printed))
    return Outcome(printed[len(READY) : output].decode(errors="replace"), how)


@cache
def check() -> str:
    """The isolation that runs here, for the record; raises ImprintError where there is none."""
    run("pass", 60.0)
    return "namespaces (user, mount, process, network, IPC), own root, no capabilities, seccomp"
