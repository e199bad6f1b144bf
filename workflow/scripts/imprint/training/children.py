"""The processes that fit, one a rank: those of one machine are started together, watched, and ended together."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import IO, Any

from imprint.runtime import job_record, plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.training.ranks import Ranks

LAST_LINES = 5.0
"""Seconds until the last lines of an ended rank are in the log. A process that the rank has left behind may hold the
pipe."""


class Ended(Strict):
    """How ranks have ended, in the order of their places: the answer of each, which is empty if it gave none, and its
    exit status, which is the number of a signal below 0, or None if it was still running when all were ended."""

    answers: list[dict[str, Any]]
    statuses: list[int | None]


def run(
    order: Path, ranks: list[Ranks], device: str, threads: int, door: int | None = None, until: int | None = None
) -> Ended:
    """Run these `ranks` on the fit in the file `order`. `device` is the config's, `threads` those of a rank. As soon as
    a rank ends badly, all are ended, and also when the open file descriptor `until` comes to its end. `door` is the
    descriptor of the socket at which rank 0 listens."""
    # The import makes the program part of the job's code. It comes late because the program imports `launch`.
    from imprint.training import rank as program

    with ExitStack() as stack:
        # Answers are kept in memory, so that they arrive even when the disk is full.
        answers = [stack.enter_context(open(os.memfd_create("answer"), "rb", buffering=0)) for _ in ranks]
        processes: list[subprocess.Popen[bytes]] = []
        printing: list[Thread] = []
        try:
            for rank, answer in zip(ranks, answers, strict=True):
                place, descriptor = rank.place, answer.fileno()
                words = [str(order), str(descriptor), str(os.getpid()), str(place)]
                environment = {
                    **os.environ,
                    **rank.environment(device, threads),
                    "PYTHONPATH": str(plugins.PACKAGE.parent),
                }
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", program.__name__, *words],
                    env=environment,
                    pass_fds=[descriptor] if place or door is None else [descriptor, door],
                    stdout=subprocess.PIPE if place else None,
                    stderr=subprocess.STDOUT if place else None,
                )
                processes.append(process)
                if process.stdout:
                    printing.append(Thread(target=_print, args=(place, process.stdout), daemon=True))
                    printing[-1].start()
            wait(processes, until)
            statuses = [process.poll() for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
            for thread in printing:
                thread.join(LAST_LINES)
        return Ended(answers=[_read(answer) for answer in answers], statuses=statuses)


def judged(ended: Ended, nodes: int = 1) -> list[dict[str, Any]]:
    """The answers of all ranks of a fit, on so many `nodes`. Puts their accelerators into the job's record. Raises
    ImprintError with the message of the rank that has failed, or with its signal or exit status."""
    job_record.add({**_accelerator(ended.answers, nodes), "ranks": len(ended.answers), "nodes": nodes})
    _refuse(ended.answers, ended.statuses)
    return ended.answers


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


def _read(answer: IO[bytes]) -> dict[str, Any]:
    answer.seek(0)
    result: dict[str, Any] = json.loads(answer.read() or "{}")
    return result


def _accelerator(results: list[dict[str, Any]], nodes: int = 1) -> dict[str, Any]:
    """What the ranks say of their accelerators (`job_record.accelerator`). Each sees all GPUs of its machine, and
    counts its own memory."""
    used = [result["accelerator"] for result in results if "accelerator" in result]
    if not used or "peak_gpu_memory_bytes" not in used[0]:
        return used[0] if used else {}
    of_nodes = (result.get("accelerator", {}) for result in results[:: len(results) // nodes])
    return {
        **used[0],
        "gpu_names": [name for accelerator in of_nodes for name in accelerator.get("gpu_names", ())],
        "peak_gpu_memory_bytes": sum(one.get("peak_gpu_memory_bytes", 0) for one in used),
    }


def _refuse(results: list[dict[str, Any]], statuses: list[int | None]) -> None:
    """Raise ImprintError for the rank that failed first. When one has failed, the others fail too, since they wait for
    it; those that were still waiting have no status. So what a rank says of itself counts most, then a signal, which no
    failing rank sends to itself, and then the time at which it failed."""
    for result in results:
        if "error" in result:
            raise ImprintError(result["error"])
    failed = [place for place, status in enumerate(statuses) if status]
    if not failed:
        return
    place = min(failed, key=lambda place: ((statuses[place] or 0) > 0, results[place].get("failed_at", math.inf)))
    status = statuses[place] or 0
    who = "the process of the fit" if len(statuses) == 1 else f"rank {place} of the fit's {len(statuses)} ranks"
    if status < 0:
        raise ImprintError(
            f"{who} was ended by {signal.Signals(-status).name} (by SIGKILL where memory runs out); run again: what "
            "was finished is kept"
        )
    raise ImprintError(f"{who} ended with exit status {status}; what it printed says why")
