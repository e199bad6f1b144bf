"""Where and how a job ran: host, Slurm job, GPUs, seconds. It varies between equal runs, so it is no part of a manifest
or a table of results; it lies beside them, for the costs and for whoever wonders.

A record is a list of attempts, since a job that was killed and repeated has cost both. A new run of a job whose last
attempt ended well starts a new record.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from imprint.errors import ImprintError
from imprint.identity import read_json, write_json


def path_for(output: Path) -> Path:
    """The record of the job that makes `output`: job.json beside a manifest, else NAME.job.json."""
    return output.with_name("job.json") if output.name == "manifest.json" else output.with_suffix(".job.json")


@contextmanager
def kept(path: Path, gpus: int, threads: int) -> Iterator[None]:
    """Add an attempt to the record when it begins, and what it took when it ends, well or not."""
    attempts = read(path)
    if attempts and attempts[-1].get("ended"):
        attempts = []
    attempt: dict[str, Any] = {
        "host": socket.gethostname(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "gpus": gpus,
        "threads": threads,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    attempts.append(attempt)
    write_json(path, {"attempts": attempts})
    start = time.monotonic()
    try:
        yield
        attempt["ended"] = True
    finally:
        attempt |= {"seconds": round(time.monotonic() - start, 3), **_accelerator()}
        with suppress(OSError):  # the disk may be what is full; the job's own error is the one to show
            write_json(path, {"attempts": attempts})


def _accelerator() -> dict[str, Any]:
    """What torch used in this process, if it was loaded at all."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {"device": "cpu"}
    numbers = range(torch.cuda.device_count())
    return {
        "device": "cuda",
        "gpu_names": [torch.cuda.get_device_name(number) for number in numbers],
        "peak_gpu_memory_bytes": sum(torch.cuda.max_memory_allocated(number) for number in numbers),
    }


def read(path: Path) -> list[dict[str, Any]]:
    """The attempts in a record; none where it is missing or broken, since nothing depends on it."""
    try:
        found: list[dict[str, Any]] = read_json(path)["attempts"]
    except (ImprintError, KeyError, TypeError):
        return []
    return found if all(isinstance(attempt, dict) for attempt in found) else []
