"""The processes that fit, one a rank: those of one machine are started together, watched, and ended together."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from imprint.runtime import job_record, rank_processes
from imprint.runtime.plugins import Strict
from imprint.runtime.rank_processes import Command
from imprint.runtime.ranks import Ranks


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
        commands = [
            Command(
                rank,
                [program.__name__, str(order), str(answer.fileno()), str(os.getpid()), str(rank.place)],
                [answer.fileno()] if rank.place or door is None else [answer.fileno(), door],
            )
            for rank, answer in zip(ranks, answers, strict=True)
        ]
        with rank_processes.started(commands, device, threads) as processes:
            rank_processes.wait(processes, until)
            statuses = [process.poll() for process in processes]
        return Ended(answers=[_read(answer) for answer in answers], statuses=statuses)


def judged(ended: Ended, nodes: int = 1) -> list[dict[str, Any]]:
    """The answers of all ranks of a fit, on so many `nodes`. Puts what they have used into the job's record. Raises
    ImprintError with the message of the rank that has failed, or with its signal or exit status."""
    job_record.add({**rank_processes.used(ended.answers, nodes), "ranks": len(ended.answers), "nodes": nodes})
    rank_processes.refuse(ended.answers, ended.statuses, "fit")
    return ended.answers


def _read(answer: IO[bytes]) -> dict[str, Any]:
    answer.seek(0)
    result: dict[str, Any] = json.loads(answer.read() or "{}")
    return result
