"""The fork server: a process that has imported the libraries that run a model, and forks itself for each job of a run
that needs them. Importing them takes seconds of CPU, more than loading a small model, and a run has many such jobs.

The driver of a run starts the server, and the two end together. A job's own process hands its script over, waits, and
ends as the fork does. When the job's process is killed, the fork ends too. Only jobs that the driver itself has started
hand over; a job of Slurm imports the libraries itself.

The server imports libraries and no code of Imprint, so that a job imports the code that it was planned with.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

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
"""Seconds between the interrupt and SIGKILL, for a fork whose job was killed."""

_kept: list[int] = []  # the end of a pipe that closes with the driver


def start(environment: dict[str, str], libraries: Sequence[str] = LIBRARIES) -> None:
    """Start the server of this run, whose driver is this process. It imports the libraries when the first job asks, in
    the given `environment`."""
    folder = tempfile.mkdtemp(prefix="imprint-fork-server-")  # nobody else may enter it
    address = str(Path(folder, "socket"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        until, held = os.pipe()
        _kept.append(held)
        subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(listener.fileno()), str(until), folder, *libraries],
            env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
            pass_fds=[listener.fileno(), until],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the driver and its jobs
        )
        os.close(until)
    os.environ[ADDRESS] = f"{address} {os.getpid()}"


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
        if not forked:
            return
        status = connection.recv(1)
        if not status:  # the fork was killed, so this process ends in the same way
            os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(status[0])


def _descends_from(ancestor: int) -> bool:
    """Whether `ancestor` has started this process, directly or through others."""
    pid = os.getppid()
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            return False
    return False


def serve(listener: socket.socket, until: int, libraries: Sequence[str]) -> socket.socket | None:
    """Fork for each connection, with the libraries imported. Returns the connection in a fork, and None in the server
    when the pipe `until` has come to its end."""
    while until not in select.select([listener.fileno(), until], [], [])[0]:
        connection, _ = listener.accept()
        for library in libraries:
            importlib.import_module(library)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets ended forks
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            os.close(until)
            return connection
        connection.close()
    return None


def run(connection: socket.socket) -> None:
    """Run the script that a job's process has handed over, in its folder and environment, and with its streams. The
    exit status is sent last, when all that was registered with `atexit` has run."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile("rb").readline())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [request["script"]]
    connection.sendall(b"\0")
    over = Event()
    Thread(target=_end_with, args=(connection, over), daemon=True).start()
    status = 0

    def tell() -> None:
        over.set()
        connection.send(bytes([status]))

    atexit.register(tell)  # the first to be registered is the last to be called
    try:
        runpy.run_path(request["script"], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1


def _end_with(connection: socket.socket, over: Event) -> None:
    """End this process when its job's process has ended, unless the script is over: by an interrupt, so that the job's
    record is written, and after `GRACE` by SIGKILL."""
    connection.recv(1)
    if not over.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        if not over.wait(GRACE):
            os.kill(os.getpid(), signal.SIGKILL)


def main(listener: int, until: int, folder: str, libraries: Sequence[str]) -> None:
    """The server's process, and its forks."""
    connection = serve(socket.socket(fileno=listener), until, libraries)
    if connection is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        run(connection)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
