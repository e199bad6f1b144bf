"""The costs job. It gathers the costs of all jobs that run a model: seconds, memory, GPUs and attempts from the jobs'
records and from Slurm's accounting, tokens from manifests and generations. It also gathers the training curves, the
composed arms' coefficients and the synthesis attempts, in one table each.

A killed attempt leaves no figures in the record. Slurm's accounting knows all attempts, and the processes of a job on
all nodes, so its figures are taken if it knows a job."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from imprint.runtime import job_record, parquet
from imprint.runtime.errors import shown
from imprint.runtime.identity import read_object
from imprint.runtime.plugins import Strict


def accounting(jobs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Slurm job id -> seconds, CPU seconds, GPU-seconds and peak resident bytes, from `sacct`. Empty if there is no
    `sacct` or it fails."""
    numbers = sorted(set(jobs))
    costs: dict[str, dict[str, Any]] = {}
    if not numbers or shutil.which("sacct") is None:
        return costs
    for start in range(0, len(numbers), 500):  # a command line has a limited length
        fields = "JobIDRaw,ElapsedRaw,TotalCPU,MaxRSS,AllocTRES"
        command = ["sacct", "-n", "-P", "-D", f"--format={fields}", "-j", ",".join(numbers[start : start + 500])]
        process = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        if process.returncode != 0:
            why = shown(process.stderr.strip())
            print(f"imprint: sacct fails ({why}); costs are from the jobs' records alone", file=sys.stderr)
            return {}
        add_accounting(costs, process.stdout)
    return costs


def add_accounting(costs: dict[str, dict[str, Any]], text: str) -> None:
    """Add sacct's lines (JobIDRaw|ElapsedRaw|TotalCPU|MaxRSS|AllocTRES) to `costs`. A job has one line with its times
    and its allocation, and one line for each step (NUMBER.STEP) with the memory of that step."""
    for line in text.splitlines():
        number, elapsed, cpu, memory, allocated = line.split("|")[:5]
        job = costs.setdefault(
            number.split(".")[0], {"seconds": 0.0, "cpu_seconds": 0.0, "gpu_seconds": 0.0, "peak_memory_bytes": None}
        )
        if "." in number:
            if (peak := slurm_bytes(memory)) is not None:
                job["peak_memory_bytes"] = max(peak, job["peak_memory_bytes"] or 0)
            continue
        gpus = re.search(r"gres/gpu=(\d+)", allocated)
        # A job that Slurm queued again has a line for each time that it ran.
        job["seconds"] += float(elapsed or 0)
        job["cpu_seconds"] += slurm_seconds(cpu)
        job["gpu_seconds"] += float(elapsed or 0) * (int(gpus.group(1)) if gpus else 0)


def slurm_bytes(text: str) -> int | None:
    """The bytes of a size as sacct writes it, such as 713492K; None for anything else."""
    size = re.fullmatch(r"([\d.]+)([KMGT]?)", text.strip())
    return int(float(size.group(1)) * 1024 ** " KMGT".index(size.group(2) or " ")) if size else None


def slurm_seconds(text: str) -> float:
    """The seconds of a time as sacct writes it: [days-][hours:]minutes:seconds."""
    days, _, clock = text.rpartition("-")
    total = 0.0
    for part in clock.split(":"):
        total = total * 60 + float(part or 0)
    return total + 86400 * int(days or 0)


def of_job(attempts: list[dict[str, Any]], slurm: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The costs of one job, from the `attempts` in its record, and from Slurm's figures, which are taken if `slurm` has
    every attempt. Seconds and CPU seconds of a record are those of the last attempt."""
    finished = [attempt for attempt in attempts if attempt.get("seconds") is not None]
    last = finished[-1] if finished else {}
    costs = {
        "seconds": last.get("seconds"),
        "cpu_seconds": last.get("cpu_seconds"),
        "gpu_seconds": sum(a["seconds"] * a.get("gpus", 0) for a in finished) if finished else None,
        **{key: _most(finished, key) for key in ("peak_memory_bytes", "peak_gpu_memory_bytes")},
        "attempts": len(attempts) or None,
        "source": "record",
    }
    numbers = {str(attempt.get("slurm_job_id")) for attempt in attempts}
    if attempts and numbers <= slurm.keys():
        jobs = [slurm[number] for number in numbers]
        costs |= {key: sum(job[key] for job in jobs) for key in ("seconds", "cpu_seconds", "gpu_seconds")}
        costs |= {"peak_memory_bytes": _most([*jobs, costs], "peak_memory_bytes"), "source": "slurm"}
    return costs


def _most(jobs: list[dict[str, Any]], key: str) -> int | None:
    return max((job[key] for job in jobs if job.get(key) is not None), default=None)


class Costed(Strict):
    """One job that runs a model: the arm whose weights it loads, and its output. `table` is the kind of table of the
    output, whose responses have token counts; None for a fit, whose manifest has them, and for an output without token
    counts."""

    stage: str
    arm: str
    seed: int
    eval: str | None
    output: str
    table: str | None


class Spec(Strict):
    """The jobs whose costs are collected."""

    jobs: list[Costed]


def _from_output(job: Costed) -> dict[str, Any]:
    """The costs that a job's output holds: `tokens`, and for a fit `device`."""
    path = Path(job.output)
    if job.stage == "train":
        manifest = read_object(path, "arm", "device")
        return {"tokens": manifest["metrics"].get("tokens"), "device": manifest["device"]}
    if job.table is None:
        return {"tokens": None}
    rows = parquet.read(path, job.table, ("arm", "seed", "eval", "response_tokens"), coded=True)
    return {"tokens": pc.sum(rows["response_tokens"]).as_py() or 0}


def run(*, spec: Spec, manifests: list[Path], synthesis: list[Path], out: dict[str, Path]) -> None:
    """Write the costs, curves, coefficients and synthesis tables."""
    records = [job_record.read(job_record.path_for(Path(job.output))) for job in spec.jobs]
    slurm = accounting(str(a["slurm_job_id"]) for record in records for a in record if a.get("slurm_job_id"))
    rows = []
    for job, record in zip(spec.jobs, records, strict=True):
        row = {
            **{"arm": job.arm, "seed": job.seed, "stage": job.stage, "eval": job.eval},
            **{"device": record[-1].get("device") if record else None, **_from_output(job)},
            **of_job(record, slurm),
        }
        # Over the seconds of the complete job, which include loading the model.
        row["tokens_per_second"] = row["tokens"] / row["seconds"] if row["tokens"] and row["seconds"] else None
        rows.append(row)
    parquet.write(out["costs"], "costs", rows)
    curves = [path.with_name("curves.parquet") for path in manifests]
    parquet.write(out["curves"], "curves", parquet.concat([path for path in curves if path.is_file()], "curves"))
    coefficients = [path.with_name("coefficients.parquet") for path in manifests]
    composed = [path for path in coefficients if path.is_file()]
    parquet.write(out["coefficients"], "coefficients", parquet.concat(composed, "coefficients"))
    parquet.write(out["synthesis"], "synthesis", parquet.concat(synthesis, "synthesis"))
