"""The machines that share a fit: the nodes of one Slurm job.

The job's process is on the first node. It starts a launcher for each node (`training/node.py`), for the others by
Slurm's `srun`, and a launcher starts the ranks of its node. A launcher ends its ranks when its standard input ends. So
all ranks end with the job's process, however that ends, and Slurm ends what is left when the job is over."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from imprint.runtime import plugins, rank_processes
from imprint.runtime.errors import ImprintError
from imprint.runtime.ranks import Door, Ranks
from imprint.training.children import Ended

ENDING = 30.0
"""Seconds that a launcher has to end its ranks and to answer, before it is ended itself."""
ANSWER = b"ranks: "
"""How the line begins in which a launcher answers; what a site's scripts print there is none."""


def check(arm: str, nodes: int) -> None:
    """Raise ImprintError for a fit on several nodes that is not in a job of Slurm."""
    if nodes > 1 and not ("SLURM_JOB_ID" in os.environ and shutil.which("srun")):
        raise ImprintError(refusal(arm, nodes))


def refusal(arm: str, nodes: int) -> str:
    """What is wrong with several nodes where no Slurm is."""
    return (
        f"arms.{arm}.resources.nodes: found {nodes}, and only Slurm starts processes on several machines; run with "
        "`--profile slurm`, or write `nodes: 1`"
    )


def listening() -> socket.socket:
    """A socket at a port of this machine that the kernel chooses, so that no two jobs meet there."""
    return socket.create_server(("", 0))


def door(listening: socket.socket) -> Door:
    """Where other machines find the socket."""
    return Door(host=socket.gethostname(), port=listening.getsockname()[1], socket=listening.fileno())


def run(order: Path, size: int, nodes: int, threads: int, gpus: int, door: int) -> Ended:
    """Run `size` ranks on the `nodes` of this Slurm job on the fit in the file `order`, which all nodes can read.
    `threads` are those of a rank, `gpus` those of all nodes, and `door` is the descriptor of the socket at which rank 0
    listens. As soon as a rank ends badly on any node, all are ended. Raises ImprintError for a launcher that ended
    without an answer."""
    # The import makes the program part of the job's code. It comes late because the program imports `launch`.
    from imprint.training import node as program

    of_node = Ranks(0, size, nodes).of_node
    with ExitStack() as stack:
        answers = [stack.enter_context(open(os.memfd_create("answer"), "rb", buffering=0)) for _ in range(nodes)]
        launchers: list[subprocess.Popen[bytes]] = []
        try:
            for number, answer in enumerate(answers):
                words = [sys.executable, "-P", "-m", program.__name__, str(order), str(number)]
                launchers.append(
                    subprocess.Popen(
                        [*_on(number, threads * of_node, gpus // nodes), *words],
                        env={**os.environ, "PYTHONPATH": str(plugins.PACKAGE.parent)},
                        stdin=subprocess.PIPE,
                        stdout=answer,
                        pass_fds=[] if number else [door],
                    )
                )
            rank_processes.wait(launchers)
            statuses = [launcher.poll() for launcher in launchers]
        finally:
            _end(launchers)
        ended = [_read(answer) for answer in answers]
    for number, status in enumerate(statuses):
        if status is not None and not ended[number]:
            raise ImprintError(
                f"the launcher of the ranks on node {number} of the job's {nodes} ended with exit status {status} and "
                "gave no answer; what it printed says why; run again: what was finished is kept"
            )
    known = [one or Ended(answers=[{}] * of_node, statuses=[None] * of_node) for one in ended]
    return Ended(
        answers=[answer for one in known for answer in one.answers],
        statuses=[status for one in known for status in one.statuses],
    )


def _on(number: int, threads: int, gpus: int) -> list[str]:
    """The words before a command that run it on a node of this job with so many threads and GPUs."""
    step = ["srun", "--nodes=1", "--ntasks=1", f"--relative={number}", f"--cpus-per-task={threads}", "--mpi=none"]
    # Else Slurm takes the job's GPUs, those of all nodes, for the step's, and refuses it.
    mine = [f"--gres=gpu:{gpus}"] if gpus else []
    return [*step, *mine] if number else []


def _end(launchers: list[subprocess.Popen[bytes]]) -> None:
    """Let the launchers end their ranks, and wait for them."""
    for launcher in launchers:
        assert launcher.stdin is not None
        launcher.stdin.close()
    for launcher in launchers:
        try:
            launcher.wait(ENDING)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()


def _read(answer: IO[bytes]) -> Ended | None:
    """What a launcher has answered; None if nothing."""
    answer.seek(0)
    lines = [line.removeprefix(ANSWER) for line in answer.read().splitlines() if line.startswith(ANSWER)]
    return Ended.model_validate_json(lines[-1]) if lines else None
