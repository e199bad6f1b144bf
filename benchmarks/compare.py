"""How long `python -m imprint.compare` takes: CPU seconds on two logs of lm-eval, and where they go.

$ PYTHONPATH=workflow/scripts .venv/bin/python benchmarks/compare.py            # 2 x 500,000 rows, 2.4 GB in /tmp
$ PYTHONPATH=workflow/scripts .venv/bin/python benchmarks/compare.py --rows 20000
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import random
import resource
import tempfile
from pathlib import Path

from imprint import compare

WORDS = ("a", "gardener", "plants", "rows", "of", "trees", "and", "sells", "each", "for", "some", "dollars", "how")


def write(path: Path, rows: int, rate: float, seed: int) -> None:
    """A log like GSM8K's without examples in the prompt, about 2.4 kB a row, in which a share `rate` is right."""
    draw = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            question = f"Problem {number}: " + " ".join(WORDS[(number * k) % len(WORDS)] for k in range(1, 90)) + "?"
            response = " ".join(draw.choices(WORDS, k=130)) + f"\n#### {number}"
            row = {
                "doc_id": number,
                "doc": {"question": question, "answer": question[:200]},
                "target": str(number),
                "arguments": {
                    "gen_args_0": {"arg_0": f"Question: {question}\nAnswer:", "arg_1": {"until": ["Question:"]}}
                },
                "resps": [[response]],
                "filtered_resps": [str(number)],
                "filter": "strict-match",
                "metrics": ["exact_match"],
                "doc_hash": f"{number:064x}",
                "prompt_hash": f"{number + 1:064x}",
                "target_hash": f"{number + 2:064x}",
                "exact_match": float(draw.random() < rate),
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=500_000, help="of each of the two logs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "base.jsonl", options.rows, 0.50, 1)
        write(folder / "tuned.jsonl", options.rows, 0.51, 2)
        size = sum(path.stat().st_size for path in folder.iterdir())
        before, profile = resource.getrusage(resource.RUSAGE_SELF), cProfile.Profile()
        profile.runcall(
            compare.main,
            [str(folder / "base.jsonl"), str(folder / "tuned.jsonl"), "--report", str(folder / "report.html")],
        )
        after = resource.getrusage(resource.RUSAGE_SELF)
        pstats.Stats(profile).sort_stats("cumulative").print_stats("imprint|polars.*(read_ndjson|collect)", 28)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"2 x {options.rows:,} rows, {size / 1e9:.1f} GB: {seconds:.1f} CPU seconds")
        print(f"memory: {after.ru_maxrss / 1e6:.1f} GB at most")
        print(f"report: {(folder / 'report.html').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
