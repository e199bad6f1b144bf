"""Intervals, paired tests and corrections, on plain numpy arrays.

The unit is the cluster: the examples that the dataset says depend on each other, such as those of one template, or one
example's content. Its examples, and their seeds, samples and items (instructions of one prompt), are summed before
anything is resampled. An interval therefore says how far the result would move with other examples of the same kind. It
leaves out the spread between training seeds.

Methods:

- 0/1 values, one row per cluster: Wilson's interval for a mean (Wilson 1927, J. Am. Stat. Assoc. 22); for a
  difference Tango's score interval (Tango 1998, Stat. Med. 17, eqs. 6-9) and the exact McNemar test. A paired
  bootstrap would collapse to a point when no pair is discordant, and cover far less than 95% when few are; without a
  discordant pair the score interval is [-z^2/(n+z^2), +z^2/(n+z^2)].
- all other values: a cluster bootstrap of the ratio sum(values)/sum(counts), which pools instruction-level rates, with
  expanded percentiles (Hesterberg 2015, Am. Stat. 69, section 4.1.4, "What Teachers Should Know About the
  Bootstrap"), and a sign-flip permutation test over clusters for a difference.

Worked example: 64 pairs, 9 won, 2 lost: difference 7/64 = 0.109, Tango [0.009, 0.222], McNemar p = 0.065: a tie.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import t as student

Floats = NDArray[np.float64]

LEVEL = 0.95
ALPHA = 0.05
RESAMPLES = 4_000
SIGN_DRAWS = 10_000
EXACT_SIGNS = 12  # at most 2**12 sign patterns are enumerated
FEWEST_CLUSTERS = 5  # fewer clusters have too few distinct resamples for a 95% interval
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_CHUNK = 2_000_000  # bootstrap weights held in memory at a time


@dataclass(frozen=True)
class Clustered:
    """Per-cluster sums of values and counts of rows, shape (clusters,), in the sorted order of the eval's clusters. A
    cluster without rows has count 0. For differences, `sums` holds the sums of (arm - control) over complete pairs.
    `binary` says that every value, of both arms, is 0 or 1; `single` that no cluster has more than one row of an
    arm."""

    sums: Floats
    counts: Floats
    binary: bool
    single: bool

    @property
    def n(self) -> int:
        """Clusters that hold at least one row."""
        return int(np.count_nonzero(self.counts))

    @property
    def ratio(self) -> float:
        """The pooled mean, sum of values over number of rows."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def rates(self) -> Floats:
        """The mean of each cluster that has rows, shape (n,)."""
        has_rows = self.counts > 0
        return np.asarray(self.sums[has_rows] / self.counts[has_rows], dtype=np.float64)


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error and 95% interval. What the data cannot give is None, and `method` says why."""

    mean: float | None
    se: float | None
    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True)
class Difference:
    """A paired difference with its 95% interval and two-sided p. What the data cannot give is None."""

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    test: str


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion, n >= 1."""
    p, shrink = successes / n, 1 + Z * Z / n
    centre = (p + Z * Z / (2 * n)) / shrink
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / shrink
    return max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p))


def tango(wins: int, losses: int, n: int) -> tuple[float, float]:
    """Tango's 95% score interval of a difference of paired proportions (wins - losses) / n, n >= 1."""
    estimate = (wins - losses) / n

    def excess(delta: float) -> float:
        """Signed score statistic at the hypothesis `delta`; q is the constrained estimate of the losing cell."""
        b = (2 * n - wins + losses) * delta - wins - losses
        q = (math.sqrt(max(0.0, b * b + 8 * n * losses * delta * (1 - delta))) - b) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        gap = wins - losses - n * delta
        if variance <= 1e-12 * n:
            return 0.0 if abs(gap) < 1e-9 * n else math.copysign(math.inf, gap)
        return gap / math.sqrt(variance)

    def bound(end: float, target: float) -> float:
        if abs(end - estimate) < 1e-12 or abs(excess(end)) < Z:
            return end
        return float(brentq(lambda delta: max(-1e9, min(1e9, excess(delta))) - target, end, estimate, xtol=1e-12))

    return min(bound(-1.0, Z), estimate), max(bound(1.0, -Z), estimate)


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided McNemar p: the discordant pairs are tosses of a fair coin (McNemar 1947, Psychometrika 12)."""
    n, k = wins + losses, min(wins, losses)
    return float(min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n))


def _generator(purpose: str, name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{purpose} {name}".encode()).digest()))


def resample(name: str, sums: Floats, counts: Floats) -> Floats:
    """Cluster bootstrap of sum(values)/sum(counts).

    `sums` and `counts` have shape (clusters, k), the result has shape (RESAMPLES, k). The multinomial weights depend
    only on `name` (the eval) and the number of clusters, so all arms and metrics of an eval share the resamples. Where
    a resample has no row of a column, the result is nan.
    """
    clusters = len(sums)
    generator = _generator("bootstrap", name)
    chances = np.full(clusters, 1 / clusters)
    chunk = max(1, _CHUNK // clusters)
    parts = []
    for start in range(0, RESAMPLES, chunk):
        weights = generator.multinomial(clusters, chances, size=min(chunk, RESAMPLES - start)).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append((weights @ sums) / (weights @ counts))
    return np.concatenate(parts)


def percentiles(estimates: Floats, clusters: int) -> tuple[float, float]:
    """Expanded 95% percentile interval of bootstrap estimates, shape (RESAMPLES,), of at least two clusters.

    The tail probability is so small that for symmetric data the interval has the width of Student's. Plain percentiles
    lack a degree of freedom, and are too narrow: with 16 clusters they cover 92% instead of 95%."""
    tail = NormalDist().cdf(float(student.ppf((1 - LEVEL) / 2, clusters - 1)) * math.sqrt(clusters / (clusters - 1)))
    low, high = np.nanquantile(estimates, [tail, 1 - tail])
    return float(low), float(high)


def sign_flip(differences: Floats, name: str) -> tuple[float, str]:
    """Two-sided p of the sum of per-cluster differences when arm and control are exchangeable within a cluster.

    `differences` has shape (clusters,), in sorted cluster order. If at most EXACT_SIGNS clusters differ, p is exact,
    over all sign patterns. Otherwise it comes from SIGN_DRAWS seeded draws, with the observed pattern counted as one
    more (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9: a permutation p is never zero). Returns p and the
    name of the test.
    """
    nonzero = differences[differences != 0]
    observed = abs(nonzero.sum()) * (1 - 1e-9)  # sums of equal patterns differ by rounding
    if len(nonzero) <= EXACT_SIGNS:
        patterns = (np.arange(2 ** len(nonzero))[:, None] >> np.arange(len(nonzero))) & 1
        return float(np.mean(np.abs((1 - 2 * patterns) @ nonzero) >= observed)), "sign_flip_exact"
    generator = _generator("signs", name)
    chunk = max(1, _CHUNK // len(nonzero))
    extreme = 0
    for start in range(0, SIGN_DRAWS, chunk):
        signs = 1.0 - 2.0 * generator.integers(0, 2, size=(min(chunk, SIGN_DRAWS - start), len(nonzero)))
        extreme += int(np.count_nonzero(np.abs(signs @ nonzero) >= observed))
    return (extreme + 1) / (SIGN_DRAWS + 1), "sign_flip"


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p (Holm 1979, Scand. J. Stat. 6). A None (no test) stays None, and does not count as a test."""
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        adjusted[i] = highest
    return adjusted


def verdict(difference: Difference, p_adjusted: float | None, direction: int) -> str:
    """One of "better", "worse", "tie" and "no data", for the arm against its control. It is a tie if the interval holds
    zero or the corrected p is ALPHA or more; without an interval, the corrected p alone decides. `direction` is 1 if
    higher is better, -1 if lower is."""
    if difference.difference is None or p_adjusted is None:
        return "no data"
    holds_zero = difference.low is not None and difference.high is not None and difference.low <= 0 <= difference.high
    if holds_zero or p_adjusted >= ALPHA or difference.difference == 0:
        return "tie"
    return "better" if difference.difference * direction > 0 else "worse"


def _bootstrap(name: str, cells: Sequence[Clustered]) -> dict[int, Floats]:
    """Position of a cell -> its bootstrap estimates, shape (RESAMPLES,), all from one set of weights. Left out are
    cells with exact intervals, with too few clusters, and without variation."""
    positions = [
        i
        for i, cell in enumerate(cells)
        if cell.n >= FEWEST_CLUSTERS and not (cell.binary and cell.single) and np.ptp(cell.rates) > 0
    ]
    if not positions:
        return {}
    sums = np.stack([cells[i].sums for i in positions], axis=1)
    counts = np.stack([cells[i].counts for i in positions], axis=1)
    return dict(zip(positions, resample(name, sums, counts).T, strict=True))


def means(name: str, cells: Sequence[Clustered]) -> list[Estimate]:
    """The mean of each cell of the eval `name`, with its interval.

    Without variation a bootstrap says nothing. 0/1 values then get Wilson's interval with each cluster counted once,
    which is right if the rows of a cluster always agree, and wide otherwise. Other values get no interval."""
    drawn = _bootstrap(name, cells)
    estimates = []
    for i, cell in enumerate(cells):
        if cell.n == 0:
            estimates.append(Estimate(None, None, None, None, "none: no data"))
            continue
        mean, n = cell.ratio, cell.n
        if i in drawn:
            low, high = percentiles(drawn[i], n)
            spread = float(np.nanstd(drawn[i], ddof=1))
            # The interval must hold the sample's mean, which strong skew can push out.
            estimates.append(Estimate(mean, spread, min(low, mean), max(high, mean), "bootstrap"))
        elif cell.binary and (cell.single or mean in (0.0, 1.0)):
            method = "wilson" if cell.single else "wilson_clusters"
            se = math.sqrt(mean * (1 - mean) / n)
            estimates.append(Estimate(mean, se or None, *wilson(mean * n, n), method))
        else:
            reason = f"fewer than {FEWEST_CLUSTERS} examples" if n < FEWEST_CLUSTERS else "no variation"
            estimates.append(Estimate(mean, None, None, None, f"none: {reason}"))
    return estimates


def differences(name: str, cells: Sequence[Clustered]) -> list[Difference]:
    """The paired difference of each cell of the eval `name`, with its interval and test.

    If every cluster has the same difference of -1, 0 or 1, a bootstrap says nothing. Tango's interval then counts each
    cluster once."""
    drawn = _bootstrap(name, cells)
    results = []
    for i, cell in enumerate(cells):
        if cell.n == 0:
            results.append(Difference(None, None, None, None, "none"))
            continue
        estimate, n = cell.ratio, cell.n
        wins, losses = int(np.count_nonzero(cell.sums > 0)), int(np.count_nonzero(cell.sums < 0))
        paired = cell.binary and cell.single
        p, test = (mcnemar(wins, losses), "mcnemar") if paired else sign_flip(cell.sums, name)
        if i in drawn:
            low, high = percentiles(drawn[i], n)
            results.append(Difference(estimate, min(low, estimate), max(high, estimate), p, test))
        elif paired or (cell.binary and np.ptp(cell.rates) == 0 and estimate in (-1.0, 0.0, 1.0)):
            results.append(Difference(estimate, *tango(wins, losses, n), p, test))
        else:
            results.append(Difference(estimate, None, None, p, test))
    return results
