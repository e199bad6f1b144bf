"""`make watch`: how far a running experiment is, in the terminal.

A job is done if all its outputs are there. A job runs if an output is missing and this run has begun the job's log. The
last progress bar in the log says how far the job is. A job whose outputs are out of date counts as done until it
begins, since only Snakemake knows that they are.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from imprint.config import loading
from imprint.dag import run_lock
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.runtime import job_record
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.stages import STAGES

BAR = re.compile(
    r": +\d+%\|[^|]*\| *(?P<done>\d+)/(?P<total>\d+) "
    r"\[[^<\]]*<(?P<left>[^,\]]*),[^,\]]*(?:, (?P<figures>[^\]]*))?\]"
)
"""A progress bar of tqdm."""
HEADING = re.compile(r"(?P<job>.+) on .+, (?P<begun>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)")
"""The first line of a job's log (`runtime.frame.job`)."""
TAIL = 4096  # bytes at the end of a log that are read for its last bar
EVERY = 2.0  # seconds


class Job(NamedTuple):
    """A job: its stage, its name, its state ("done", "runs", "failed" or "waits"), the last bar of a running job, and
    the seconds that the job took, where they are known."""

    stage: str
    name: str
    state: str
    bar: re.Match[str] | None
    seconds: float | None


def main(arguments: list[str] | None = None) -> None:
    """Print the state of the experiment every two seconds until its run ends."""
    parser = argparse.ArgumentParser(prog="python -m imprint.watch", description="How far a running experiment is.")
    parser.add_argument("--config", default=str(loading.DEFAULT), help="the config of the experiment")
    parser.add_argument("--limit", type=int, help="watch the run with this `limit`")
    parser.add_argument("--once", action="store_true", help="print the state once, and end")
    options = parser.parse_args(arguments)
    try:
        overrides = {} if options.limit is None else {"limit": options.limit}
        experiment = Experiment(loading.load([Path(options.config)], overrides))
        while True:
            run = running(experiment.results)
            screen = "\n".join(lines(experiment, run))
            print(f"\x1b[H\x1b[J{screen}" if sys.stdout.isatty() else screen, flush=True)
            if options.once or run is None:
                return
            time.sleep(EVERY)
    except (ImprintError, OSError) as error:
        sys.exit(f"imprint.watch: {shown(error)}")
    except KeyboardInterrupt:
        return


def running(results: str) -> run_lock.Run | None:
    """The run that holds the results folder; None if no run does."""
    path = Path(results, run_lock.NAME)
    if not path.is_file():
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return next(reversed(run_lock.read(descriptor)), None)
    finally:
        os.close(descriptor)
    return None


def lines(experiment: Experiment, run: run_lock.Run | None) -> Iterator[str]:
    """What is shown: the run, a line for each stage, a line for each job that runs or has failed, and the time that is
    left."""
    jobs = list(states(experiment, run.since if run else None))
    yield f"{experiment.results}: {shown(str(run)) if run else 'no run is going on'}"
    for stage in dict.fromkeys(job.stage for job in jobs):
        job_states = [job.state for job in jobs if job.stage == stage]
        counts = [f"{count} {state}" for state in ("runs", "failed") if (count := job_states.count(state))]
        yield f"  {stage:<14} {job_states.count('done'):>5} of {len(job_states):<5} {', '.join(counts)}".rstrip()
    for job in jobs:
        if job.state in ("runs", "failed"):
            yield shown(f"  {job.name}: {progress(job)}")
    if run:
        yield f"  {left(jobs)}"


def progress(job: Job) -> str:
    """How far a job is, in words, with the last loss or reward of a fit."""
    if job.state == "failed":
        return "failed; its log says why"
    if job.bar is None:
        return "begins"
    figures = f", {job.bar['figures']}" if job.bar["figures"] else ""
    return f"{job.bar['done']} of {job.bar['total']}, {job.bar['left']} left{figures}"


def states(experiment: Experiment, since: str | None) -> Iterator[Job]:
    """The jobs of an experiment in their present states. `since`: when the run began; None if there is no run."""
    for stage, stage_jobs in all_jobs(experiment).items():
        for job in stage_jobs.jobs():
            wildcards = job._asdict() if job else {}
            outputs = [Path(pattern.format(**wildcards)) for pattern in stage_jobs.outputs.values()]
            text = tail(Path(stage_jobs.log.format(**wildcards)))
            heading = HEADING.match(text.partition("\n")[0])
            begun = bool(heading and since and heading["begun"] >= since)
            if all(path.is_file() for path in outputs):
                state = "done"
            elif begun:
                state = "failed" if "\nimprint: " in text or "\nTraceback (most recent" in text else "runs"
            else:
                state = "waits"
            name = heading["job"] if heading else " ".join([stage, *map(str, wildcards.values())])
            bars = list(BAR.finditer(text)) if state == "runs" else []
            attempts = job_record.read(job_record.path_for(outputs[0])) if state == "done" else []
            yield Job(stage, name, state, bars[-1] if bars else None, attempts[-1].get("seconds") if attempts else None)


def tail(log: Path) -> str:
    """The first line of a log and its end; empty if there is no log."""
    try:
        with log.open("rb") as handle:
            first = handle.readline(TAIL)
            handle.seek(max(len(first), log.stat().st_size - TAIL))
            return (first + handle.read()).decode("utf-8", "replace")
    except OSError:
        return ""


def left(jobs: list[Job]) -> str:
    """The time that is left, if a waiting job takes as long as the finished jobs of its stage, and if as many jobs run
    at once as now. A job without a known time counts as taking no time; stages that run a model and have no such time
    yet are named."""
    durations: dict[str, list[float]] = {}
    for job in jobs:
        if job.seconds:
            durations.setdefault(job.stage, []).append(job.seconds)
    at_work = [job for job in jobs if job.state == "runs"]
    bars = [seconds(job.bar["left"]) for job in at_work if job.bar]
    if not durations or None in bars:
        return "The time that is left is not known yet."
    ahead = [job.stage for job in jobs if job.state == "waits" or (job.state == "runs" and not job.bar)]
    work = sum(sum(durations[stage]) / len(durations[stage]) for stage in ahead if stage in durations)
    work += sum(bar for bar in bars if bar)
    at_once = max(1, len(at_work))
    jobs_at_once = f"{at_once} job{'s' if at_once > 1 else ''} at once"
    told = f"About {round(work / at_once / 60)} minutes are left, at {jobs_at_once}"
    unknown = dict.fromkeys(stage for stage in ahead if STAGES[stage].runs_model and stage not in durations)
    return f"{told}; not counted, since none has ended yet: {', '.join(unknown)}." if unknown else f"{told}."


def seconds(clock: str) -> float | None:
    """The seconds of a clock as tqdm writes it, such as 01:20 or 1:01:20; None for "?"."""
    if not re.fullmatch(r"\d+(:\d\d)+", clock):
        return None
    total = 0.0
    for part in clock.split(":"):
        total = total * 60 + float(part)
    return total


if __name__ == "__main__":
    main()
