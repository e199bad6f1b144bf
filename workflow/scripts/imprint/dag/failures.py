"""The last lines of a failed run: which jobs have failed, why, and where their logs are.

Snakemake prints a job's own message when the job fails, far above its last lines, and it runs `onerror` before them.
So the messages of Snakemake's logger are listened to, and the lines are printed when the process that drives the run
ends. A job's log says why it has failed. Where the log does not, the job was killed: then its exit status says more,
or what Slurm wrote of it.
"""

from __future__ import annotations

import atexit
import logging
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from imprint.runtime.errors import shown

TOLD = 5
"""The most jobs that are told one by one."""
LONGEST = 2_000
"""The most characters of a cause."""
END = 1 << 17
"""The bytes at the end of a log in which its cause is looked for."""
PRINTED = "what it printed says why"
"""The end of the message of a fit whose process has raised: the exception stands above it (`training/launch.py`)."""
GONE = "it ended without a message"
"""The cause of which nothing is known."""
OF_SLURM = (
    (r"oom[-_ ]kill|OUT_OF_MEMORY", "ended by Slurm, since it used more memory than it asked for; ask for more mem_mb"),
    (r"DUE TO TIME LIMIT|'TIMEOUT'", "ended by Slurm at its time limit; ask for more runtime"),
    (r"DUE TO PREEMPTION|'PREEMPTED'", "ended by Slurm for another job; run again"),
    (r"NODE_FAIL|DUE TO NODE FAILURE", "its node failed; run again"),
    (r"CANCELLED", "cancelled in Slurm; run again"),
)
"""What Slurm writes of a job that it has ended -> the cause in words."""


class Failed(NamedTuple):
    """A job that has failed. `logs`: its own log and then Slurm's. `said`: what Snakemake said of it. `grouped`: it was
    in one Slurm job with others, each of which counts as failed."""

    rule: str
    wildcards: dict[str, str]
    logs: list[Path]
    said: str
    grouped: bool


class Listener(logging.Handler):
    """Keeps which jobs of a run have failed and were not repeated with success: `failed`, by Snakemake's job id."""

    def __init__(self) -> None:
        super().__init__()
        self.began = time.time()
        self.failed: dict[int, Failed] = {}
        self._wildcards: dict[int, dict[str, str]] = {}
        self._said: dict[int | None, str] = {}  # thread -> the last error; that of a job comes just before its failure
        self._logs_of_group: dict[int | None, list[str]] = {}  # thread -> Slurm's logs of a group

    def emit(self, record: logging.LogRecord) -> None:
        said: dict[str, Any] = record.__dict__
        event = str(said.get("event", ""))
        if event == "job_info":
            self._wildcards[said["jobid"]] = dict(said["wildcards"] or {})
        elif event == "job_finished":
            self.failed.pop(said["job_id"], None)
        elif event == "error":
            self._said[record.thread] = record.getMessage()
        elif event == "group_error":
            self._logs_of_group[record.thread] = said["aux_logs"]
        elif event == "job_error":
            grouped = bool(said["indent"])
            more = self._logs_of_group.get(record.thread, []) if grouped else []
            self.failed[said["jobid"]] = Failed(
                rule=said["rule_name"],
                wildcards=self._wildcards.get(said["jobid"], {}),
                logs=[Path(str(log)) for log in (*said["log"], *more)],
                said="\n".join(filter(None, [said["rule_msg"], self._said.pop(record.thread, None)])),
                grouped=grouped,
            )


def tell_at_end(workflow: Any) -> None:
    """From now on, listen to the logger of a run. When this process ends, print a line for each job that has failed."""
    listener = Listener()
    workflow.logger_manager.logger.addHandler(listener)

    def tell() -> None:
        sys.stdout.flush()
        for line in lines(list(listener.failed.values()), listener.began):
            print(f"imprint: {line}", file=sys.stderr, flush=True)

    atexit.register(tell)


def lines(failed: list[Failed], began: float) -> list[str]:
    """What is told of the failed jobs of a run, safe to print. `began`: when the run began, in seconds since the epoch;
    an older log is of another run. Of jobs that were in one Slurm job, those with a cause are told, and if none has
    one, all."""
    causes = [(job, cause(job, began)) for job in failed]
    known = any(job.grouped and why for job, why in causes)
    causes = [(job, why) for job, why in causes if why or not (job.grouped and known)]
    told = [
        shown(f"{name(job)}: {(why or fate(job))[:LONGEST]}{f' (log: {job.logs[0]})' if job.logs else ''}")
        for job, why in causes[:TOLD]
    ]
    more = len(causes) - TOLD
    if more > 0:
        told.append(f"{more} more job{'s' * (more > 1)} failed; snakemake's messages above name them")
    return told


def name(job: Failed) -> str:
    """A job in words: "generate, arm tuned, seed 0, eval general"."""
    return ", ".join([job.rule, *(f"{key} {value}" for key, value in job.wildcards.items())])


def cause(job: Failed, began: float) -> str | None:
    """Why a job has failed, by its own log; None if this run has written none, or if it does not say."""
    log = next(iter(job.logs), None)
    return written(_end(log)) if log is not None and log.is_file() and log.stat().st_mtime >= began - 1 else None


def written(log: str) -> str | None:
    """The cause in the text of a log: the message of an `ImprintError` as `runtime/frame.py` writes it, else the
    exception under the last traceback. None if there is neither."""
    text = log.replace("\r", "\n")
    heading = text.split("\n", 1)[0].rsplit(" on ", 1)[0]
    before, found, message = text.rpartition(f"\nimprint: {heading}: ")
    if found and not message.rstrip().endswith(PRINTED):
        return message.strip()
    _, traced, trace = (before or text).rpartition("Traceback (most recent call last):\n")
    raised = next((line for line in trace.splitlines() if line[:1].strip()), None) if traced else None
    if found:
        return raised or message.strip()
    return raised


def fate(job: Failed) -> str:
    """How a job has ended that wrote no cause: by what Slurm says, by its exit status, by Snakemake's last word."""
    # The first log is the job's own, in which a model may have said anything.
    text = "\n".join([job.said, *(_end(log) for log in job.logs[1:] if log.is_file())])
    for pattern, words in OF_SLURM:
        if re.search(pattern, text):
            return words
    if ended := re.search(r"died with <Signals\.\w+: (\d+)>|exit status 1(29|[3-9]\d)\b", text):
        number = int(ended[1] or f"1{ended[2]}") - (0 if ended[1] else 128)
        return f"killed by signal {number}" + (", probably out of memory" if number == signal.SIGKILL else "")
    last = (job.said.strip().splitlines() or [""])[-1].strip()
    return GONE if not last or last.startswith("Command ") else last


def _end(log: Path) -> str:
    """The beginning of a log's first line and the end of the log, as text."""
    with log.open("rb") as file:
        first = file.readline(1000)
        file.seek(max(len(first), log.stat().st_size - END))
        return (first + file.read()).decode("utf-8", "replace")
