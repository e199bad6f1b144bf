"""Everything that a GPU has to show, in one go: a machine with a GPU is often lent for half an hour, without a network.

    python benchmarks/gpu/all.py OUT [--minutes 25]

It runs the tests on a GPU and the benchmarks of this folder, one after the other, the most telling first. What is not
begun when the time is over is left out, and what still runs is ended. OUT gets the output of each part as a file. The
last line is one JSON object: for each part how it ended, its seconds and, of a benchmark, its figures.

The packages of the lock must be there. Where the machine has a torch of its own for its GPU, carry the wheels of the
others (`pip download --no-deps`) and install them with `pip install --no-deps --no-index`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PARTS: dict[str, list[str]] = {
    "tests": ["-m", "pytest", "-q", "-rA", "tests/gpu"],
    "throughput": ["benchmarks/gpu/throughput.py"],
    "atlas_step": ["benchmarks/gpu/atlas_step.py", "--layers", "2"],
    "throughput_fp32": ["benchmarks/gpu/throughput.py", "--dtype", "float32"],
    "atlas_step_streamed": ["benchmarks/gpu/atlas_step.py", "--layers", "2", "--stream"],
}


def run(words: list[str], file: Path, seconds: float) -> dict[str, Any]:
    """One part, whose output goes to `file`. How it ended, after how many seconds, and the JSON object in its last line
    if it has one there."""
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow/scripts")}
    with file.open("w", encoding="utf-8") as output:
        try:
            done = subprocess.run(
                [sys.executable, *words],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
            )
            ended = "well" if done.returncode == 0 else f"with exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = "because the time was over"
    found: dict[str, Any] = {"ended": ended, "seconds": round(time.monotonic() - start)}
    last = (file.read_text(encoding="utf-8").splitlines() or [""])[-1]
    return {**found, "figures": json.loads(last)} if last.startswith("{") and ended == "well" else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=25)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    found = {}
    for name, words in PARTS.items():
        left = end - time.monotonic()
        found[name] = run(words, options.out / f"{name}.txt", left) if left > 0 else {"ended": "before it began"}
        print(name, json.dumps(found[name]), flush=True)
    print(json.dumps(found))
    if any(part["ended"] != "well" for part in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
