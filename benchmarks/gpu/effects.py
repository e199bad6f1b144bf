"""The experiments of config/effects on a GPU, with more training runs than two CPU cores allow.

    python benchmarks/gpu/effects.py OUT [--minutes 25] [--seeds 10] [--profile profiles/local] [NAME ...]

The questions, arms and evals are those of the configs. Only the number of seeds grows, so the intervals say more. The
results lie in results/larger/NAME, and those of the configs are left alone. What is not finished when the time is over
is finished by the same command later: finished jobs are not run again. OUT gets each experiment's report on what is
finished, and the tables that its page in docs/results is made from. The last line is one JSON object: for each
experiment how it ended, after how many seconds, and the answers if it has finished.

The packages of the lock and the model must be there. A machine without a network needs the model's wheel in a folder
that IMPRINT_DATA_MIRROR names. The profile profiles/local gives each job that runs a model a GPU; without one the job
stops with an error. `--profile none` runs the same on CPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("self_prompt", "prior_prompt", "ifeval_coat", "composition")
"""The most telling first."""
TABLES = ("answers", "summary", "comparisons")
END = 60.0
"""Seconds that jobs have to end in order."""


def settings(name: str, options: argparse.Namespace) -> list[str]:
    """The words that name an experiment, for snakemake and for the project's own commands."""
    larger = [f"seeds={list(range(options.seeds))}", f"results=results/larger/{name}"]
    return ["--configfile", f"config/effects/{name}.yaml", "--config", *larger]


def run(name: str, options: argparse.Namespace, seconds: float) -> str:
    """Run an experiment for so many seconds at most. Returns how that ended."""
    words = [sys.executable, "-m", "snakemake", "--profile", options.profile, "--cores", "all", "--keep-going"]
    words += ["--rerun-incomplete", "--quiet", "rules", "progress", "host"]
    log = options.out / name / "snakemake.txt"
    with log.open("a", encoding="utf-8") as output:
        resume = [sys.executable, "-m", "imprint.resume", *settings(name, options)]  # what an earlier kill has left
        subprocess.run(resume, cwd=ROOT, env=environment(), stdout=output, stderr=output, check=True)
        process = subprocess.Popen([*words, *settings(name, options)], cwd=ROOT, stdout=output, stderr=output)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return "because the time was over"
    return "well" if status == 0 else f"with exit status {status}; see {log}"


def collect(name: str, options: argparse.Namespace, finished: bool) -> list[dict[str, Any]]:
    """Copy an experiment's page and tables to OUT. Returns its answers if it has finished."""
    results, out = ROOT / "results/larger" / name, options.out / name
    if not finished:
        words = [sys.executable, "-m", "imprint.partial", *settings(name, options)]
        with (out / "partial.txt").open("w", encoding="utf-8") as output:
            subprocess.run(words, cwd=ROOT, env=environment(), stdout=output, stderr=output, check=False)
    for page in results.glob("*.html"):
        shutil.copy2(page, out)
    for table in TABLES:
        if (file := results / f"tables/{table}.parquet").is_file():
            shutil.copy2(file, out)
    if not finished:
        return []
    import polars as pl

    columns = ["question", "verdict", "difference", "ci_low", "ci_high", "n_pairs", "n_seeds"]
    return pl.read_parquet(results / "tables/answers.parquet").select(columns).to_dicts()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "workflow/scripts")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", default=NAMES, help=f"default: {' '.join(NAMES)}")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--profile", default="profiles/local")
    options = parser.parse_args()
    options.out = options.out.resolve()
    for name in options.names:
        if not (ROOT / f"config/effects/{name}.yaml").is_file():
            sys.exit(f"gpu/effects: there is no config/effects/{name}.yaml")
    end = time.monotonic() + 60 * options.minutes - END
    found = {}
    for name in options.names:
        start = time.monotonic()
        if start >= end:
            found[name] = {"ended": "before it began"}
            continue
        (options.out / name).mkdir(parents=True, exist_ok=True)
        ended = run(name, options, end - start)
        answers = collect(name, options, ended == "well")
        found[name] = {"ended": ended, "seconds": round(time.monotonic() - start), "answers": answers}
        print(name, json.dumps(found[name]), flush=True)
    print(json.dumps(found))
    if any(each["ended"] != "well" for each in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
