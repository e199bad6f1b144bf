"""How often Student's interval holds the truth where differences are skewed: `python benchmarks/skew.py [--runs N]`.

The difference of two arms that are not trained is drawn for every item from a distribution with mean 0. The interval
comes from `imprint.statistics.contrasts`. Prints a Markdown table and one JSON line. There is no limit to hold;
docs/statistics.md states the figures.
"""

from __future__ import annotations

import argparse
import json
import math

import numpy as np

from imprint.statistics.contrasts import Scores, contrast
from imprint.statistics.looks import Z

DRAWS = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "gamma, skewness 2": lambda rng, n: rng.exponential(size=n) - 1,
    "lognormal, skewness 6.2": lambda rng, n: rng.lognormal(size=n) - math.exp(0.5),
    "5% move ten times as far, one way": lambda rng, n: (
        rng.standard_normal(n) + np.where(rng.random(n) < 0.05, 10.0, 0.0) - 0.5
    ),
}


def coverage(name: str, n: int, runs: int) -> float:
    """The share of intervals of n items that hold 0."""
    rng = np.random.default_rng(n)
    held = 0
    for _ in range(runs):
        values = {"arm": DRAWS[name](rng, n)[:, None], "base": np.zeros((n, 1))}
        compared = contrast(Scores(np.arange(n), values, {"arm": (0,), "base": (0,)}, frozenset()), "arm", "base")
        assert compared is not None
        low, high = compared.interval(Z)
        held += low <= 0 <= high
    return held / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=4000, help="data sets a cell")
    runs = parser.parse_args().runs
    sizes = (16, 64, 200)
    print("| differences |", " | ".join(f"n = {n}" for n in sizes), "|")
    print("|---" * (len(sizes) + 1) + "|")
    table = {name: [coverage(name, n, runs) for n in sizes] for name in DRAWS}
    for name, row in table.items():
        print(f"| {name} |", " | ".join(f"{share:.3f}" for share in row), "|")
    print(json.dumps({"runs": runs, "coverage": table}))


if __name__ == "__main__":
    main()
