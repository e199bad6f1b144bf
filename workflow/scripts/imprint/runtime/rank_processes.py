"""The processes of ranks (`runtime/ranks.py`). Those of one machine are started, watched, and ended together."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import IO, Any, NamedTuple

from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.ranks import Ranks

LAST_LINES = 5.0
"""Seconds until the last lines of an ended rank are in the log. A process that the rank has left behind may hold the
pipe."""


class Command(NamedTuple):
    """How a rank is started: a module of the package with its arguments, and the open file descriptors that it gets."""

    rank: Ranks
    module: list[str]
    descriptors: list[int]


@contextmanager
def started(commands: list[Command], device: str, threads: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start a process for each rank. At the end of the block, those that still run are killed. `device` is the
    config's, `threads` those of a rank. What ranks other than the first print is printed with the rank's place."""
    processes: list[subprocess.Popen[bytes]] = []
    printing: list[Thread] = []
    try:
        for rank, module, descriptors in commands:
            environment = rank.environment(device, threads)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *module],
                env={**os.environ, **environment, "PYTHONPATH": str(plugins.PACKAGE.parent)},
                pass_fds=descriptors,
                stdout=subprocess.PIPE if rank.place else None,
                stderr=subprocess.STDOUT if rank.place else None,
            )
            processes.append(process)
            if process.stdout:
                printing.append(Thread(target=_print, args=(rank.place, process.stdout), daemon=True))
                printing[-1].start()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for thread in printing:
            thread.join(LAST_LINES)


def _print(place: int, output: IO[bytes]) -> None:
    """Print what a rank prints, each line with the rank's place."""
    for line in output:
        sys.stderr.buffer.write(b"[rank %d] %s\n" % (place, line.rstrip(b"\n")))
        sys.stderr.buffer.flush()


def wait(processes: list[subprocess.Popen[bytes]], until: int | None = None) -> None:
    """Return when all have ended well, as soon as one has not, or when the file descriptor `until` comes to its end."""
    poll, running = select.poll(), {os.pidfd_open(process.pid): process for process in processes}
    try:
        for handle in running:
            poll.register(handle, select.POLLIN)
        if until is not None:
            poll.register(until, select.POLLIN)  # nothing is ever written there
        ended = set[int]()
        while len(ended) < len(running):
            for handle, _ in poll.poll():
                if handle == until or running[handle].wait() != 0:
                    return
                poll.unregister(handle)
                ended.add(handle)
    finally:
        for handle in running:
            os.close(handle)


def used(results: list[dict[str, Any]], nodes: int = 1) -> dict[str, Any]:
    """What the ranks together have used, of what each says of itself (`job_record.used`). Each sees all GPUs of
    its machine, and counts its own memory."""
    of_ranks = [result["used"] for result in results if "used" in result]
    if not of_ranks:
        return {}
    memory = [key for key in ("peak_memory_bytes", "peak_gpu_memory_bytes") if key in of_ranks[0]]
    of_nodes = [result.get("used", {}) for result in results[:: len(results) // nodes]]
    gpus = [name for one in of_nodes for name in one.get("gpu_names", ())]
    return {
        **of_ranks[0],
        **{key: sum(one.get(key, 0) for one in of_ranks) for key in memory},
        **({"gpu_names": gpus} if gpus else {}),
    }


def refuse(results: list[dict[str, Any]], statuses: list[int | None], job: str) -> None:
    """Raise ImprintError for the rank that failed first, of ranks that share a `job`, such as "fit". When one has
    failed, the others fail too, since they wait for it; those that were still waiting have no status. So what a rank
    says of itself counts most, then a signal, which no failing rank sends to itself, and then the time at which it
    failed."""
    for result in results:
        if "error" in result:
            raise ImprintError(result["error"])
    failed = [place for place, status in enumerate(statuses) if status]
    if not failed:
        return
    place = min(failed, key=lambda place: ((statuses[place] or 0) > 0, results[place].get("failed_at", math.inf)))
    status = statuses[place] or 0
    who = f"the process of the {job}" if len(statuses) == 1 else f"rank {place} of the {job}'s {len(statuses)} ranks"
    if status < 0:
        raise ImprintError(
            f"{who} was ended by {signal.Signals(-status).name} (by SIGKILL where memory runs out); run again: what "
            "was finished is kept"
        )
    raise ImprintError(f"{who} ended with exit status {status}; what it printed says why")
