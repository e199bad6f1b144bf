"""What it saves to read the beginning of few-shot prompts once: `python benchmarks/shared_prefix.py MODEL MMLU`.

MODEL is a folder under resources/models. MMLU is a folder with CSV files of MMLU's split `dev` (question, four choices,
index of the answer). Every question stands behind the same five solved ones and is answered by the likelihoods of its
letters. Both ways take turns on the same batches, with one thread, and their likelihoods are compared. The last line is
one JSON object with the figures, the limits and `holds`.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from pathlib import Path

import torch

from imprint.engines import Candidates, transformers
from imprint.models.chains import load

LIMIT = 2.0  # CPU seconds of reading each prompt whole, over those of reading the beginning once
CLOSE = 1e-3  # nats, in fp32
LETTERS = "ABCD"


def asked(rows: list[list[str]], engine: transformers.Engine) -> list[Candidates]:
    """Each row from the sixth on, behind the first five."""
    blocks = ["\n".join([row[0], *map("{}. {}".format, LETTERS, row[1:5]), "Answer:"]) for row in rows]
    shots = "\n\n".join(f"{block} {LETTERS[int(row[5])]}" for block, row in zip(blocks[:5], rows, strict=False))
    texts = [engine.render([{"role": "user", "content": f"{shots}\n\n{block}"}]) for block in blocks[5:]]
    return [Candidates(text.text, tuple(LETTERS), text.breaks) for text in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("mmlu", type=Path)
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load([options.model / "manifest.json"], "float32", "cpu")
    engine = transformers.Engine(model, tokenizer, batch_size=16)
    files = sorted(options.mmlu.glob("*dev*.csv"))
    rows = [row for file in files for row in [*csv.reader(file.open(encoding="utf-8"))][1:]][: options.questions + 5]
    prompts = asked(rows, engine)
    ways = {"whole": 10**9, "once": transformers.SHARED}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    found = {}
    for _ in range(options.rounds):
        for way, least in ways.items():
            transformers.SHARED = least
            began = time.process_time()
            found[way] = [[option.logprob_sum or 0.0 for option in answer] for answer in engine.loglikelihood(prompts)]
            seconds[way].append(time.process_time() - began)
    ratio = statistics.median(a / b for a, b in zip(seconds["whole"], seconds["once"], strict=True))
    apart = max(abs(a - b) for one, other in zip(*found.values(), strict=True) for a, b in zip(one, other, strict=True))
    lengths = [len(engine.tokens(prompt.text, prompt.breaks)) for prompt in prompts]
    for way, taken in seconds.items():
        print(f"{way}: {', '.join(f'{one:.1f}' for one in taken)} CPU seconds")
    print(
        json.dumps(
            {
                "ratio": round(ratio, 2),
                "questions": len(prompts),
                "tokens_in_the_mean": round(statistics.mean(lengths)),
                "largest_difference_nats": apart,
                "limits": {"ratio": LIMIT, "largest_difference_nats": CLOSE},
                "holds": ratio >= LIMIT and apart <= CLOSE,
            }
        )
    )


if __name__ == "__main__":
    main()
