"""The fork server: a process that has imported the libraries that run a model, and forks itself for each job of a run
that needs them. Importing them takes seconds of CPU, more than loading a small model, and a run has many such jobs.

The driver of a run starts the server, and the two end together. A job's own process hands its script over, waits, and
ends as the fork does. When the job's process is killed, its fork is ended too. Only jobs that the driver itself has
started hand over; a job of Slurm imports the libraries itself.

The server imports libraries and nothing of Imprint that counts as a job's code, so that a job imports the code that it
was planned with. NumPy's linear algebra has one thread in a fork: it reads the number of threads when it is imported.
"""

from __future__ import annotations

import atexit
import importlib
import json
import math
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from imprint.runtime import parents

LIBRARIES = (
    "pyarrow.parquet",
    "pydantic",
    "snakemake.script",
    "torch",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)
ADDRESS = "IMPRINT_FORK_SERVER"
"""Environment variable with the server's socket and the driver's process id."""
GRACE = 5.0
"""Seconds between the interrupt and SIGKILL, for a fork whose job's process has ended."""


def start(environment: dict[str, str], libraries: Sequence[str] = LIBRARIES) -> None:
    """Start the server of this run, whose driver is this process. It imports the libraries when the first job asks, in
    the given `environment`. Where the system has no place for its socket, it says so, and there is no server."""
    folder = tempfile.mkdtemp(prefix="imprint-fork-server-")  # nobody else may enter it
    address = str(Path(folder, "socket"))
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(address)
        except OSError as error:
            print(f"imprint: {address}: {error}; each job imports torch itself, which takes longer", file=sys.stderr)
            os.rmdir(folder)
            return
        listener.listen()
        until, held = os.pipe()
        paths = [str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")]
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(listener.fileno()), str(until), folder, *libraries],
            env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            pass_fds=[listener.fileno(), until],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the driver and its jobs
        )
        os.close(until)
    os.environ[ADDRESS] = f"{address} {os.getpid()}"
    atexit.register(_end, server, held)


def _end(server: subprocess.Popen[bytes], held: int) -> None:
    """Let the server end, which it also does when the driver is killed. Its forks end with it."""
    os.close(held)
    try:
        server.wait(2 * GRACE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def hand_over() -> None:
    """Let the server run the script of this process, and end this process as the fork ends. Returns where this process
    has no server, or the server could not fork."""
    address, _, driver = os.environ.get(ADDRESS, "").rpartition(" ")
    if not address or not _descends_from(int(driver)):
        return
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            socket.send_fds(connection, [b"\0"], [0, 1, 2])
            environment = {name: value for name, value in os.environ.items() if name != ADDRESS}
            request = {"script": sys.argv[0], "folder": os.getcwd(), "environment": environment}
            connection.sendall(json.dumps(request).encode() + b"\n")
            forked = connection.recv(1)
        except OSError:
            forked = b""
        if forked:
            _end_as(_status(connection))


def _descends_from(ancestor: int) -> bool:
    """Whether `ancestor` has started this process, directly or through others."""
    pid = os.getppid()
    while pid:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            return False
    return False


def _status(connection: socket.socket) -> int:
    """How the fork has ended: its exit status, or minus the number of the signal that has ended it. An interrupt goes
    to the fork first."""
    answers = connection.makefile("rb")
    try:
        line = answers.readline()
    except KeyboardInterrupt:
        connection.shutdown(socket.SHUT_WR)
        line = answers.readline()
    return int(line) if line else -signal.SIGKILL  # a server that is killed takes its forks with it


def _end_as(status: int) -> NoReturn:
    """End this process with an exit status, or, for a negative one, by a signal."""
    if status >= 0:
        sys.exit(status)
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    sys.exit(128 - status)  # a signal that ends no process


@dataclass
class Job:
    """What a job's process hands over: its open streams (0, 1 and 2), its script, folder and environment."""

    streams: list[int]
    script: str
    folder: str
    environment: dict[str, str]


@dataclass
class Fork:
    """A fork as the server sees it, and the connection to its job's process. `killed_at` is when it will be killed,
    once its job's process has ended."""

    pid: int
    connection: socket.socket
    killed_at: float = math.inf


class Server:
    """Forks for each connection to `listener`, until the pipe `until` has come to its end and the last fork has
    ended."""

    def __init__(self, listener: socket.socket, until: int, libraries: Sequence[str]) -> None:
        self.listener, self.until, self.libraries = listener, until, libraries
        self.driven = True
        """Whether the driver lives, so that more jobs may come."""
        self.forks: dict[int, Fork] = {}
        """By the descriptor of the fork's process (pidfd)."""

    def serve(self) -> Job | None:
        """Returns the job in a fork, and None in the server at its end."""
        while self.driven or self.forks:
            of_driver = [self.listener.fileno(), self.until] if self.driven else []
            of_jobs = {fork.connection.fileno(): fork for fork in self.forks.values() if fork.killed_at == math.inf}
            next_kill = min((fork.killed_at for fork in self.forks.values()), default=math.inf)
            seconds = None if next_kill == math.inf else max(0.0, next_kill - time.monotonic())
            ready = select.select([*of_driver, *self.forks, *of_jobs], [], [], seconds)[0]
            for handle in ready:
                if handle in self.forks:
                    self._tell(handle)
                elif handle in of_jobs:  # the job's process has ended, or was interrupted
                    of_jobs[handle].killed_at = time.monotonic() + GRACE
                    os.kill(of_jobs[handle].pid, signal.SIGINT)
            for fork in self.forks.values():
                if fork.killed_at <= time.monotonic():
                    os.kill(fork.pid, signal.SIGKILL)
            if self.until in ready:
                self.driven = False
            elif self.listener.fileno() in ready and (job := self._fork()):
                return job
        return None

    def _fork(self) -> Job | None:
        """Fork for the next connection. Returns its job in the fork."""
        connection, _ = self.listener.accept()
        job = _asked(connection)
        if job is None:
            connection.close()
            return None
        for library in self.libraries:
            importlib.import_module(library)
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            parents.end_with(server)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for held in (self.listener, connection, *(fork.connection for fork in self.forks.values())):
                held.close()
            for handle in (self.until, *self.forks):
                os.close(handle)
            return job
        for stream in job.streams:
            os.close(stream)
        self.forks[os.pidfd_open(pid)] = Fork(pid, connection)
        with suppress(OSError):  # where the job's process has ended, the next turn sees it
            connection.sendall(b"\0")
        return None

    def _tell(self, handle: int) -> None:
        """Tell a job's process how its fork has ended."""
        fork = self.forks.pop(handle)
        os.close(handle)
        _, status = os.waitpid(fork.pid, 0)
        with fork.connection, suppress(OSError):  # the job's process may have ended
            fork.connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _asked(connection: socket.socket) -> Job | None:
    """What a job's process hands over; None where it has ended meanwhile, or hangs."""
    connection.settimeout(GRACE)
    streams, line = list[int](), b""
    with suppress(OSError), connection.makefile("rb") as lines:
        streams = socket.recv_fds(connection, 1, 3)[1]
        line = lines.readline()
    connection.settimeout(None)
    if line:
        return Job(streams, **json.loads(line))
    for stream in streams:
        os.close(stream)
    return None


def run(job: Job) -> None:
    """Run the script of a job, in its folder and environment, and with its streams."""
    for number, stream in enumerate(job.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    sys.argv = [job.script]
    runpy.run_path(job.script, run_name="__main__")


def main(listener: int, until: int, folder: str, libraries: Sequence[str]) -> None:
    """The server's process, and its forks."""
    server = os.getpid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        job = Server(socket.socket(fileno=listener), until, libraries).serve()
    except Exception as error:
        print(f"imprint: the fork server ends, and jobs import torch themselves: {error!r}", file=sys.stderr)
        sys.exit(1)
    finally:
        if os.getpid() == server:
            shutil.rmtree(folder, ignore_errors=True)
    if job is not None:
        run(job)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
