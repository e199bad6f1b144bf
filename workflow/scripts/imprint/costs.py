"""What it cost: seconds and memory from Snakemake's benchmark files, tokens from manifests and generations, and the
training curves, composed arms' coefficients and synthesis attempts of the whole experiment in one table each."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from imprint import tables
from imprint.identity import read_json

MIB = 1024**2


def benchmark(path: Path) -> dict[str, Any]:
    """Seconds, CPU seconds and peak resident bytes of a job; nulls where the file or a figure is missing, as when a
    run was made elsewhere (Snakemake writes "NA" or "-" for jobs too short to be sampled)."""
    blank = {"seconds": None, "cpu_seconds": None, "peak_memory_bytes": None}
    if not path.is_file():
        return blank
    with path.open(newline="") as handle:
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


def _tokens(tokens: int | None, seconds: float | None) -> dict[str, Any]:
    """Tokens trained on or generated, and how many a second of the whole job, loading included."""
    return {"tokens": tokens or 0, "tokens_per_second": tokens / seconds if tokens and seconds else None}


def run(*, spec: dict[str, Any], manifests: list[Path], attempts: list[Path], out: dict[str, Path]) -> None:
    """Write the costs, curves, coefficients and synthesis tables."""
    rows = []
    for path in manifests:
        manifest = read_json(path)
        arm, seed = manifest["arm"], manifest["seed"]
        times = benchmark(Path(spec["results"], "benchmarks", "train", f"{arm}.seed{seed}.tsv"))
        made = _tokens(manifest["metrics"].get("tokens"), times["seconds"])
        stage = {"arm": arm, "seed": seed, "stage": "train", "eval": None, "device": manifest["device"]}
        rows.append({**stage, **times, **made})
    for arm, seed, ev in spec["runs"]:
        generations = tables.read(
            Path(spec["results"], "generations", arm, f"seed{seed}", f"{ev}.parquet"), "generations"
        )
        times = benchmark(Path(spec["results"], "benchmarks", "generate", f"{arm}.seed{seed}.{ev}.tsv"))
        made = _tokens(pc.sum(generations["response_tokens"]).as_py(), times["seconds"])
        # The engine's name ends with the device that it ran on.
        engine = next((name for name in generations["engine"].to_pylist() if name), "")
        stage = {"arm": arm, "seed": seed, "stage": "generate", "eval": ev, "device": engine.rpartition(" ")[2] or None}
        rows.append({**stage, **times, **made})
    tables.write(out["costs"], "costs", rows)
    curves = [path.with_name("curves.parquet") for path in manifests]
    tables.write(out["curves"], "curves", tables.concat([path for path in curves if path.is_file()], "curves"))
    coefficients = [path.with_name("coefficients.parquet") for path in manifests]
    found = tables.concat([path for path in coefficients if path.is_file()], "coefficients")
    tables.write(out["coefficients"], "coefficients", found)
    tables.write(out["synthesis"], "synthesis", tables.concat(attempts, "synthesis"))
