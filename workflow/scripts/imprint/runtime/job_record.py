"""The record of a job: where and how it ran (machine, Slurm job, GPUs, seconds). A record varies between equal runs, so
it lies beside manifests and tables and is never a part of them. The costs are computed from the records.

A record is a list of attempts, since a job that was killed and repeated has cost both. When the last attempt ended
well, the next run of the job starts a new record.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from imprint.runtime import provenance
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_json, write_json

_of_others: dict[str, Any] = {}  # what the processes that this job has started, or a server, have used


def add(used: dict[str, Any]) -> None:
    """Put what other processes than this one have used for this job into its record, in the form of `used()`."""
    _of_others.update(used)


def path_for(output: Path) -> Path:
    """The record of the job that makes `output`: job.json beside a manifest, else NAME.job.json."""
    return output.with_name("job.json") if output.name == "manifest.json" else output.with_suffix(".job.json")


@contextmanager
def kept(path: Path, gpus: int, threads: int) -> Iterator[None]:
    """Add an attempt to the record at `path` when the block begins, and what it has used when the block ends, well or
    not: its seconds, the CPU seconds of this process and of those that it has started, device and memory."""
    attempts = read(path)
    if attempts and attempts[-1].get("ended"):
        attempts = []
    attempt: dict[str, Any] = {
        "host": socket.gethostname(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "gpus": gpus,
        "threads": threads,
        "machine": provenance.machine(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    attempts.append(attempt)
    write_json(path, {"attempts": attempts})
    start = time.monotonic()
    try:
        yield
        attempt["ended"] = True
    finally:
        attempt |= {
            "seconds": round(time.monotonic() - start, 3),
            "cpu_seconds": _cpu_seconds(),
            **used(),
            **_of_others,
        }
        with suppress(OSError):  # where the disk is full, the job's own error is the one to show
            write_json(path, {"attempts": attempts})


def _cpu_seconds() -> float:
    times = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(sum(time.ru_utime + time.ru_stime for time in times), 3)


def used() -> dict[str, Any]:
    """The device that torch has used in this process, and the peak resident bytes of this process or of the largest
    that it has started and that has ended. The device is "cpu", or "cuda" with the names of the GPUs and their peak
    memory together."""
    kibibytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    memory = {"peak_memory_bytes": 1024 * kibibytes}
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {"device": "cpu", **memory}
    numbers = range(torch.cuda.device_count())
    return {
        "device": "cuda",
        **memory,
        "gpu_names": [torch.cuda.get_device_name(number) for number in numbers],
        "peak_gpu_memory_bytes": sum(torch.cuda.max_memory_allocated(number) for number in numbers),
    }


def read(path: Path) -> list[dict[str, Any]]:
    """The attempts in a record. A missing or broken record has none, which is no error: no result depends on it."""
    try:
        attempts: list[dict[str, Any]] = read_json(path)["attempts"]
    except (ImprintError, KeyError, TypeError):
        return []
    return attempts if all(isinstance(attempt, dict) for attempt in attempts) else []
