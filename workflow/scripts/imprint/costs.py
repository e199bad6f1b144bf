"""What it cost: seconds and memory from Snakemake's benchmark files and from Slurm's accounting, GPUs and attempts from
the jobs' records, tokens from manifests and generations; and the training curves, composed arms' coefficients and
synthesis attempts of the whole experiment in one table each.

A benchmark file knows the last attempt only. Slurm's accounting knows all of them, and the memory of all processes of a
job, so where it knows a job its figures are taken."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from imprint import job_record, tables
from imprint.errors import shown
from imprint.identity import read_object

MIB = 1024**2
STAGES = {"generate": "generations", "judge": "judgements"}
"""The stages that run a model on the examples of an eval, and the tables that hold their tokens."""


def benchmark(path: Path) -> dict[str, Any]:
    """Seconds, CPU seconds and peak resident bytes of a job; nulls where the file or a figure is missing, as when a
    run was made elsewhere (Snakemake writes "NA" or "-" for jobs too short to be sampled)."""
    blank = {"seconds": None, "cpu_seconds": None, "peak_memory_bytes": None}
    if not path.is_file():
        return blank
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    if not rows:
        return blank

    def number(column: str) -> float | None:
        try:
            return float(rows[-1][column])
        except (KeyError, TypeError, ValueError):
            return None

    memory = number("max_rss")
    return {
        "seconds": number("s"),
        "cpu_seconds": number("cpu_time"),
        "peak_memory_bytes": None if memory is None else int(memory * MIB),
    }


def accounting(jobs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Slurm job id -> seconds, CPU seconds, GPU-seconds and peak resident bytes, from `sacct`; empty where there is no
    accounting to ask."""
    numbers = sorted(set(jobs))
    found: dict[str, dict[str, Any]] = {}
    if not numbers or shutil.which("sacct") is None:
        return found
    for start in range(0, len(numbers), 500):  # a command line holds only so many
        fields = "JobIDRaw,ElapsedRaw,TotalCPU,MaxRSS,AllocTRES"
        words = ["sacct", "-n", "-P", "-D", f"--format={fields}", "-j", ",".join(numbers[start : start + 500])]
        asked = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", check=False)
        if asked.returncode != 0:
            why = shown(asked.stderr.strip())
            print(f"imprint: sacct fails ({why}); costs are from benchmarks alone", file=sys.stderr)
            return {}
        add_accounting(found, asked.stdout)
    return found


def add_accounting(found: dict[str, dict[str, Any]], text: str) -> None:
    """Add sacct's lines (JobIDRaw|ElapsedRaw|TotalCPU|MaxRSS|AllocTRES): a line for the job, which has its times and
    what it held, and one a step (NUMBER.STEP), which have the memory."""
    for line in text.splitlines():
        number, elapsed, cpu, memory, held = line.split("|")[:5]
        job = found.setdefault(
            number.split(".")[0], {"seconds": 0.0, "cpu_seconds": 0.0, "gpu_seconds": 0.0, "peak_memory_bytes": None}
        )
        if "." in number:
            if (peak := slurm_bytes(memory)) is not None:
                job["peak_memory_bytes"] = max(peak, job["peak_memory_bytes"] or 0)
            continue
        gpus = re.search(r"gres/gpu=(\d+)", held)
        # A job that Slurm has queued again has a line for each time it ran.
        job["seconds"] += float(elapsed or 0)
        job["cpu_seconds"] += slurm_seconds(cpu)
        job["gpu_seconds"] += float(elapsed or 0) * (int(gpus.group(1)) if gpus else 0)


def slurm_bytes(text: str) -> int | None:
    """A size as sacct writes it, such as 713492K."""
    found = re.fullmatch(r"([\d.]+)([KMGT]?)", text.strip())
    return int(float(found.group(1)) * 1024 ** " KMGT".index(found.group(2) or " ")) if found else None


def slurm_seconds(text: str) -> float:
    """A time as sacct writes it: [days-][hours:]minutes:seconds."""
    days, _, rest = text.rpartition("-")
    total = 0.0
    for part in rest.split(":"):
        total = total * 60 + float(part or 0)
    return total + 86400 * int(days or 0)


def of_job(
    times: dict[str, Any], attempts: list[dict[str, Any]], slurm: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """The costs of one job: its benchmark, its record, and Slurm's figures for every attempt if it has them all."""
    held = [attempt for attempt in attempts if attempt.get("seconds") is not None]
    peaks = [attempt["peak_gpu_memory_bytes"] for attempt in held if attempt.get("peak_gpu_memory_bytes")]
    found = {
        **times,
        "gpu_seconds": sum(a["seconds"] * a.get("gpus", 0) for a in held) if held else None,
        "peak_gpu_memory_bytes": max(peaks, default=None),
        "attempts": len(attempts) or None,
        "source": "benchmark",
    }
    numbers = {str(attempt.get("slurm_job_id")) for attempt in attempts}
    if attempts and numbers <= slurm.keys():
        jobs = [slurm[number] for number in numbers]
        found |= {key: sum(job[key] for job in jobs) for key in ("seconds", "cpu_seconds", "gpu_seconds")}
        memory = [job["peak_memory_bytes"] for job in jobs if job["peak_memory_bytes"] is not None]
        found |= {"peak_memory_bytes": max(memory, default=times["peak_memory_bytes"]), "source": "slurm"}
    return found


def _jobs(
    spec: dict[str, Any], manifests: list[Path], attempts: list[Path]
) -> Iterator[tuple[dict[str, Any], str, Path]]:
    """Every job that runs a model: what the table says of it, its benchmark under results/benchmarks, its output."""
    results = Path(spec["results"])
    for path in manifests:
        manifest = read_object(path, "arm", "device")
        arm, seed = manifest["arm"], manifest["seed"]
        made = {"tokens": manifest["metrics"].get("tokens"), "device": manifest["device"]}
        yield {"arm": arm, "seed": seed, "stage": "train", "eval": None, **made}, f"train/{arm}.seed{seed}.tsv", path
    for path in attempts:
        dataset = path.name.removesuffix(".attempts.parquet")
        if teacher := spec["teachers"].get(dataset):
            made = {"arm": teacher, "seed": spec["teacher_seed"], "stage": "synthesize", "eval": None, "tokens": None}
            yield made, f"synthesize/{dataset}.tsv", path.with_name(f"{dataset}.parquet")
    runs = [(stage, table, run) for stage, table in STAGES.items() for run in spec[stage]]
    for stage, table, (arm, seed, ev) in runs:
        path = results / table / arm / f"seed{seed}" / f"{ev}.parquet"
        tokens = pc.sum(tables.read(path, table)["response_tokens"]).as_py() or 0
        made = {"arm": arm, "seed": seed, "stage": stage, "eval": ev, "tokens": tokens}
        yield made, f"{stage}/{arm}.seed{seed}.{ev}.tsv", path


def run(*, spec: dict[str, Any], manifests: list[Path], attempts: list[Path], out: dict[str, Path]) -> None:
    """Write the costs, curves, coefficients and synthesis tables."""
    jobs = list(_jobs(spec, manifests, attempts))
    records = [job_record.read(job_record.path_for(path)) for _, _, path in jobs]
    slurm = accounting(str(a["slurm_job_id"]) for record in records for a in record if a.get("slurm_job_id"))
    rows = []
    for (made, name, _), record in zip(jobs, records, strict=True):
        times = benchmark(Path(spec["results"], "benchmarks", name))
        row = {"device": record[-1].get("device") if record else None, **made, **of_job(times, record, slurm)}
        # Of the whole job, loading included.
        row["tokens_per_second"] = row["tokens"] / row["seconds"] if row["tokens"] and row["seconds"] else None
        rows.append(row)
    tables.write(out["costs"], "costs", rows)
    curves = [path.with_name("curves.parquet") for path in manifests]
    tables.write(out["curves"], "curves", tables.concat([path for path in curves if path.is_file()], "curves"))
    coefficients = [path.with_name("coefficients.parquet") for path in manifests]
    found = tables.concat([path for path in coefficients if path.is_file()], "coefficients")
    tables.write(out["coefficients"], "coefficients", found)
    tables.write(out["synthesis"], "synthesis", tables.concat(attempts, "synthesis"))
