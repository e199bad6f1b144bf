"""How long `python -m imprint.compare` takes: CPU seconds on two logs of lm-eval. With `--profile`, also where they go,
in more than twice the time. The last line is one JSON object with the figures, the limit and `holds`.

$ PYTHONPATH=workflow/scripts .venv/bin/python benchmarks/compare.py            # 2 x 500,000 rows, 2.4 GB in /tmp
$ PYTHONPATH=workflow/scripts .venv/bin/python benchmarks/compare.py --rows 20000 --options
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

LIMIT = 60.0  # CPU seconds, with the default number of rows
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


def write_options(path: Path, rows: int, rate: float, seed: int) -> None:
    """A log of questions with four options, about 0.9 kB a row, in which a share `rate` is right."""
    draw = random.Random(seed)
    options = ("alpha", "beta", "gamma", "delta")
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            question = f"Problem {number}: " + " ".join(WORDS[(number * k) % len(WORDS)] for k in range(1, 40)) + "?"
            sums = [[f"{-1 - draw.random():.4f}", "False"] for _ in options]
            row = {
                "doc_id": number,
                "doc": {"question": question, "choices": list(options)},
                "target": "1",
                "arguments": {
                    f"gen_args_{place}": {"arg_0": f"Q: {question}\nA:", "arg_1": f" {option}"}
                    for place, option in enumerate(options)
                },
                "resps": [[each] for each in sums],
                "filtered_resps": sums,
                "filter": "none",
                "metrics": ["acc"],
                "doc_hash": f"{number:064x}",
                "prompt_hash": f"{number + 1:064x}",
                "target_hash": f"{number + 2:064x}",
                "acc": float(draw.random() < rate),
            }
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=500_000, help="of each of the two logs")
    parser.add_argument("--options", action="store_true", help="questions with options in place of written answers")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = write_options if options.options else write
        make(folder / "base.jsonl", options.rows, 0.50, 1)
        make(folder / "tuned.jsonl", options.rows, 0.51, 2)
        size = sum(path.stat().st_size for path in folder.iterdir())
        before, profile = resource.getrusage(resource.RUSAGE_SELF), cProfile.Profile()
        words = [str(folder / "base.jsonl"), str(folder / "tuned.jsonl"), "--report", str(folder / "report.html")]
        if options.profile:
            profile.runcall(compare.main, words)
            pstats.Stats(profile).sort_stats("cumulative").print_stats("imprint|polars.*(read_ndjson|collect)", 40)
        else:
            compare.main(words)
        after = resource.getrusage(resource.RUSAGE_SELF)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        figures = {
            "rows": 2 * options.rows,
            "gigabytes": round(size / 1e9, 1),
            "cpu_seconds": round(seconds, 1),
            "memory_gigabytes": round(after.ru_maxrss / 1e6, 1),
            "report_megabytes": round((folder / "report.html").stat().st_size / 1e6, 1),
        }
        print(json.dumps({**figures, "limits": {"cpu_seconds": LIMIT}, "holds": seconds <= LIMIT}))


if __name__ == "__main__":
    main()
