"""How often the intervals hold the truth: `python benchmarks/coverage.py [--runs N] [--processes N]`.

Simulates experiments of a grid of designs and asks `imprint.statistics.questions` its questions. An item is solved
where a latent normal variable is positive: the item's difficulty (shared by the items of its cluster, in part), how
the arm takes the item, the training run, and chance. All arms have the same chance of success but for the first arm,
which may have an effect. Four questions compare the four trained arms with a control: an untrained one, or another
trained arm.

Prints a Markdown table, a row a design: coverage of one question's own interval, coverage of the simultaneous intervals
(all four together), and the share of experiments with any wrong verdict. Then one JSON line with the limits: in designs
with three seeds or more, each coverage is at least 94% and the family-wise error at most 5.5%; a design counts as an
exception where it misses a limit by more than two standard errors of its simulation. docs/statistics.md has the table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from scipy.stats import norm

from imprint.statistics.contrasts import Scores, contrast
from imprint.statistics.looks import Z
from imprint.statistics.questions import Question, answers

ARMS = 4
LIMITS = {"coverage": 0.94, "family_wise_error": 0.055}
AT_LEAST = 3  # seeds, from which on the limits hold


class Design(NamedTuple):
    """A design of an experiment. `seed_sd` is the standard deviation between training runs of an arm's share of solved
    items; `by_arm` and `by_seed` are the latent standard deviations of arm x item and training run x item, beside 1 of
    the item; `cluster` items share their difficulty and these; `binary` is whether an item is solved or has a value."""

    n: int
    seeds: int
    seed_sd: float
    control: str = "untrained"
    rate: float = 0.5
    effect: float = 0.0
    by_arm: float = 0.25
    by_seed: float = 0.35
    samples: int = 1
    cluster: int = 1


PLAIN = [
    Design(*cell)
    for cell in itertools.product((64, 200, 1000), (1, 3, 5, 8), (0.0, 0.02, 0.035, 0.05), ("untrained", "trained"))
]
VARIANTS = [
    design._replace(**change)
    for design in (
        Design(*cell) for cell in itertools.product((64, 200), (3, 5), (0.0, 0.035, 0.05), ("untrained", "trained"))
    )
    for change in (
        {"rate": 0.2},
        {"rate": 0.05},
        {"effect": 0.1},
        {"by_arm": 0.8, "by_seed": 0.8},
        {"samples": 4},
        {"cluster": 4},
    )
]


def simulate(design: Design, rng: np.random.Generator) -> tuple[Scores, float]:
    """One experiment's scores, and the true difference of the first arm."""
    spread = math.sqrt(1 + design.by_arm**2 + design.by_seed**2 + 1)
    density = norm.pdf(norm.ppf(design.rate)) / spread  # of success, by the latent mean
    groups = design.n // design.cluster

    def of_items(*columns: int) -> np.ndarray:
        return np.repeat(rng.standard_normal((groups, *columns)), design.cluster, axis=0)

    item = of_items(1)
    values = {}
    for k in range(ARMS + 1):
        seeds = 1 if k == ARMS else design.seeds
        run = rng.normal(0, design.seed_sd / density, seeds) if k < ARMS else 0.0
        latent = norm.ppf(design.rate) * spread + (design.effect / density if k == 0 else 0.0)
        latent = latent + item + design.by_arm * of_items(1) + run + design.by_seed * of_items(seeds)
        drawn = latent[..., None] + rng.standard_normal((len(item), seeds, design.samples))
        values["untrained" if k == ARMS else f"arm{k}"] = (drawn > 0).mean(axis=-1)
    seeds_of = {name: tuple(range(table.shape[1])) for name, table in values.items()}
    fitted = frozenset(f"arm{k}" for k in range(ARMS))
    scores = Scores(np.repeat(np.arange(groups), design.cluster), values, seeds_of, fitted)
    return scores, truth(design, spread, density)


def truth(design: Design, spread: float, density: float) -> float:
    """The expected difference of the first arm, over items and training runs."""
    if not design.effect:
        return 0.0
    seeded = math.hypot(spread, design.seed_sd / density)
    return float(
        norm.cdf((norm.ppf(design.rate) * spread + design.effect / density) / seeded)
        - norm.cdf(norm.ppf(design.rate) * spread / (seeded if design.control == "trained" else spread))
    )


def run(job: tuple[Design, int, int]) -> tuple[float, float, float, float]:
    """(coverage of one interval, coverage of all, share with a wrong verdict, mean half-width) of a design."""
    design, runs, number = job
    rng = np.random.default_rng([20_261_127, number])
    controls = ["untrained"] * ARMS if design.control == "untrained" else ["arm1", "arm2", "arm3", "arm1"]
    family = [Question(f"q{k}", f"arm{k}", controls[k], "eval") for k in range(ARMS)]
    one = all_of_them = wrong = 0
    widths = 0.0
    for _ in range(runs):
        scores, effect = simulate(design, rng)
        compared = contrast(scores, "arm0", controls[0])
        if compared is None or not compared.known:
            continue
        low, high = compared.interval(Z)
        one += low <= effect <= high
        widths += (high - low) / 2
        gaps = {f"arm{k}": effect if k == 0 else 0.0 for k in range(ARMS)}
        held, false = True, False
        for answer in answers(family, {"eval": scores}):
            gap = gaps[answer.question.arm] - gaps.get(answer.question.control, 0.0)
            if answer.low is None or answer.high is None:
                continue
            held &= answer.low <= gap <= answer.high
            false |= (answer.low > 0 and gap <= 0) or (answer.high < 0 and gap >= 0)
        all_of_them += held
        wrong += false
    return one / runs, all_of_them / runs, wrong / runs, widths / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=1000, help="experiments a design")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    designs = [*PLAIN, *VARIANTS]
    columns = [*Design._fields, "coverage", "all four", "wrong", "half-width"]
    print("|", " | ".join(columns), "|")
    print("|" + "---|" * len(columns))
    exceptions = []
    jobs = [(design, options.runs, number) for number, design in enumerate(designs)]
    with ProcessPoolExecutor(options.processes) as pool:
        for design, (one, held, wrong, width) in zip(designs, pool.map(run, jobs), strict=True):
            figures = [f"{one:.3f}", f"{held:.3f}", f"{wrong:.3f}", f"{width:.3f}"]
            print("|", " | ".join([*map(str, design), *figures]), "|", flush=True)
            slack = 2 * math.sqrt(0.05 * 0.95 / options.runs)
            low = min(one, held) < LIMITS["coverage"] - slack or wrong > LIMITS["family_wise_error"] + slack
            if low and design.seeds >= AT_LEAST:
                exceptions.append(list(design))
    figures = {"designs": len(designs), "runs": options.runs, "exceptions": exceptions}
    print(json.dumps({**figures, "limits": LIMITS, "holds": not exceptions}))


if __name__ == "__main__":
    main()
