"""Paired differences of arms, with the two variances that they have: between examples and between training seeds.

An arm's scores on an eval are an array of items x seeds. An item is what is scored once a response: an example, or one
instruction of an example. Items of one cluster depend on each other: they share a template, a document or a content.

The difference D of two arms is the mean over items and seeds of arm minus control. Its variance is

    V = V_examples + max(0, V_seeds - V_shared).

- V_examples: how far D would move with other clusters of items. The items' differences of seed means are summed within
  their clusters, and D is the ratio of the clusters' sums and counts (linearised, as in survey sampling: Cochran 1977,
  Sampling Techniques, section 6.4). n - 1 degrees of freedom, where n is the number of clusters. Where most clusters
  have the same difference (they tie) and only k have another, k says how well the variance is known: it is multiplied
  by (k + 2) / k x n / (n + 2). For 0/1 pairs this is, nearly, the adjustment of Bonett and Price 2012 (J. Educ. Behav.
  Stat. 37), two further clusters that differ one way each; where all clusters differ, it changes nothing.
- V_seeds: how far D would move with other training runs. Every fitted arm of the eval lends its spread, so that a few
  seeds suffice. Where both arms are fitted and have the same seeds, an arm's seed is paired with the control's: equal
  seeds share the rows and their order. V_seeds is then 2 MS / S, where MS is the mean square of the interaction in the
  table of arms x seeds, with (K - 1)(S - 1) degrees of freedom for K arms and S seeds. Where the control is not fitted,
  V_seeds is the variance of an arm's seed means, pooled over the fitted arms, over S; K(S - 1) degrees of freedom.
- V_shared: what both of them count, the variance of one seed's answer to one item.

The interval uses Student's t with Satterthwaite's degrees of freedom (Satterthwaite 1946, Biometrics Bulletin 2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit  # what scipy.stats calls; its own wrappers take most of the time

from imprint.statistics.intervals import paired_score, tango, wilson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_CLUSTERS = 5
"""With fewer clusters, no interval is given: their variance is hardly known."""


@dataclass(frozen=True)
class Scores:
    """The scores of all arms on one metric of an eval.

    `clusters`: the cluster of each item, 0 to n - 1, shape (items,). `values`: arm -> scores, shape (items, seeds),
    means over the samples of an item; nan where an item has no score. `seeds`: arm -> the seeds of the columns.
    `fitted`: the arms whose weights were trained, and therefore differ from seed to seed. `single`: the arms whose
    weights come from a single training run, so that their seeds, if there are several, do not show other runs.
    """

    clusters: Ints
    values: Mapping[str, Floats]
    seeds: Mapping[str, tuple[int, ...]]
    fitted: frozenset[str]
    single: frozenset[str] = frozenset()

    @cached_property
    def n_clusters(self) -> int:
        """How many clusters there are."""
        return len(np.unique(self.clusters))

    @cached_property
    def unpaired(self) -> Spread:
        """How the seed means of a fitted arm spread, pooled over the fitted arms."""
        means = [_seed_means(self.values[name]) for name in sorted(self.fitted) if name in self.values]
        means = [of_arm for of_arm in means if len(of_arm) > 1 and np.isfinite(of_arm).all()]
        df = sum(len(of_arm) - 1 for of_arm in means)
        squares = sum(float(np.square(of_arm - of_arm.mean()).sum()) for of_arm in means)
        return Spread(squares / df if df else 0.0, df, len(means))

    def paired(self, seeds: tuple[int, ...]) -> Spread:
        """How the seed means of the fitted arms that have these seeds spread, beyond what arms and seeds explain."""
        if seeds not in self._paired:
            arms = [name for name in sorted(self.fitted) if set(seeds) <= set(self.seeds.get(name, ()))]
            table = np.array([_seed_means(_columns(self, name, seeds)) for name in arms])
            table = table[np.isfinite(table).all(axis=1)]
            rows, columns = table.shape
            rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
            df = (rows - 1) * (columns - 1)
            self._paired[seeds] = Spread(float(np.square(rest).sum()) / df, df, rows)
        return self._paired[seeds]

    @cached_property
    def _paired(self) -> dict[tuple[int, ...], Spread]:
        return {}


class Spread(NamedTuple):
    """A mean square of seed means, its degrees of freedom, and how many arms it rests on. All contrasts of an eval
    share it."""

    square: float
    df: int
    arms: int


@dataclass(frozen=True)
class Contrast:
    """A difference of two arms, or the mean of one arm, with what an interval needs.

    `influence`: each cluster's part in the error of the difference, shape (clusters,): their sum of squares times
    n / (n - 1) is `v_examples`. `loads`: fitted arm -> +1 for the arm and -1 for the control, by which differences of
    one eval share seeds. `wins` and `losses` count clusters by the sign of their difference, `missing` those without a
    complete item. `score` says that the data are 0/1 pairs, one item a cluster, without seeds, so that score intervals
    hold. `v_seeds` is what seeds add to `v_examples`, and None where the seeds of a fitted arm are too few to know;
    `arms` counts the fitted arms whose spread it rests on. `v_shared` is the part of `v_examples` that more seeds would
    lower, and 0 where it is not known. `df` is Satterthwaite's. `one_run` says that an arm shows a single training run.
    """

    difference: float
    clusters: int
    missing: int
    seeds: int
    wins: int
    losses: int
    influence: Floats
    loads: Mapping[str, int]
    v_examples: float
    v_seeds: float | None
    v_shared: float
    df: float
    arms: int
    score: bool
    mean: bool
    one_run: bool

    @property
    def se(self) -> float:
        """The standard error of the difference; without a seed's part where that is not known."""
        return math.sqrt(self.v_examples + (self.v_seeds or 0.0))

    @property
    def known(self) -> bool:
        """Whether an interval can be given: there are enough clusters, and the differences vary or are 0/1."""
        varies = self.se > 1e-9 * abs(self.difference)  # equal differences vary by rounding
        return self.clusters >= FEWEST_CLUSTERS and (self.score or varies)

    def critical(self, z: float) -> float:
        """The critical value of this contrast's t that has the tail of the normal critical value `z`."""
        return z if self.score else -float(stdtrit(self.df, ndtr(-z)))

    def interval(self, z: float) -> tuple[float, float]:
        """The interval whose level is that of +-z of the standard normal distribution. `known` must hold."""
        if not self.score:
            half = self.critical(z) * self.se
            return self.difference - half, self.difference + half
        if self.mean:
            return wilson(self.difference * self.clusters, self.clusters, z)
        return tango(self.wins, self.losses, self.clusters, z)

    def half_width(self, z: float) -> float:
        """Half the width of `interval`."""
        low, high = self.interval(z)
        return (high - low) / 2

    def statistic(self, null: float) -> float:
        """The standard normal value that is as far out as the difference is if `null` holds. `known` must hold."""
        if self.score and not self.mean:
            return paired_score(self.wins, self.losses, self.clusters, null)
        t = (self.difference - null) / self.se if self.se else math.copysign(math.inf, self.difference - null)
        if self.score:
            return t
        return math.copysign(float(-ndtri(stdtr(self.df, -abs(t)))), t)


def contrast(scores: Scores, arm: str, control: str | None) -> Contrast | None:
    """Arm minus control on the items that both have in every seed; without a control, the arm's mean. None where there
    is no such item."""
    sides = [arm] if control is None else [arm, control]
    fitted = [side for side in sides if side in scores.fitted]
    shared = tuple(seed for seed in scores.seeds[arm] if all(seed in scores.seeds[side] for side in fitted))
    paired = len(fitted) == 2 and bool(shared)
    values = [_columns(scores, side, shared) if side in fitted and paired else scores.values[side] for side in sides]
    complete = np.all([np.isfinite(side).all(axis=1) for side in values], axis=0)
    if not complete.any():
        return None
    of_items = scores.clusters[complete]
    there = np.bincount(of_items) > 0
    labels, index = np.flatnonzero(there), (np.cumsum(there) - 1)[of_items]
    kept = [side[complete] for side in values]
    level = kept[0].mean(axis=1)
    items = level - (kept[1].mean(axis=1) if control is not None else 0.0)
    # Two runs of equal weights may differ in the last bits of a log-likelihood. They tie.
    items = np.where(np.abs(items) <= 1e-12 + 1e-9 * np.abs(level), 0.0, items)
    counts = np.bincount(index).astype(np.float64)
    sums = np.bincount(index, weights=items)
    difference = float(sums.sum() / counts.sum())
    n = len(counts)
    influence = np.zeros(int(scores.clusters.max()) + 1)
    influence[labels] = (sums - difference * counts) / counts.sum()
    v_examples = float(np.square(influence).sum()) * n / (n - 1) * _few_differ(sums / counts) if n > 1 else 0.0
    binary = all(bool(((side == 0.0) | (side == 1.0)).all()) for side in kept)
    widths = [side.shape[1] for side, name in zip(kept, sides, strict=True) if name in scores.fitted]
    seeds = min(widths, default=0)
    v_seeds, df_seeds, arms = _of_seeds(scores, widths, shared if paired else ())
    df: float = max(n - 1, 1)
    extra: float | None = 0.0
    v_shared = 0.0
    if fitted and seeds < 2:
        extra = None
    elif fitted:
        v_shared = _counted_twice(kept, sides, fitted, paired, index, counts)
        extra = max(0.0, v_seeds - v_shared)
        spread = v_examples**2 / max(n - 1, 1) + v_seeds**2 / df_seeds
        df = max(1.0, (v_examples + extra) ** 2 / spread) if spread else df
    alone = bool((counts == 1).all()) and all(side.shape[1] == 1 for side in kept)
    unanimous = v_examples == 0 and bool(np.isin(sums / counts, (-1.0, 0.0, 1.0)).all())
    return Contrast(
        difference=difference,
        clusters=n,
        missing=scores.n_clusters - n,
        seeds=seeds,
        wins=int(np.count_nonzero(sums > 0)),
        losses=int(np.count_nonzero(sums < 0)),
        influence=influence,
        loads={side: 1 if side == arm else -1 for side in fitted},
        v_examples=v_examples,
        v_seeds=extra,
        v_shared=min(v_shared, v_examples),
        df=df,
        arms=arms,
        score=binary and (alone or (unanimous and not extra)),
        mean=control is None,
        one_run=extra is None or any(side in scores.single for side in sides),
    )


def _few_differ(values: Floats) -> float:
    """What the variance between clusters is multiplied by where most of them have one value; 1 where all differ."""
    n = len(values)
    most_common = int(np.unique(np.round(values, 9), return_counts=True)[1].max())
    others = n - most_common
    return (others + 2) / others * n / (n + 2) if others and most_common > 1 else 1.0


def _columns(scores: Scores, arm: str, seeds: Sequence[int]) -> Floats:
    """The scores of the arm at these seeds, in their order."""
    return scores.values[arm][:, [scores.seeds[arm].index(seed) for seed in seeds]]


def _of_seeds(scores: Scores, widths: list[int], shared: tuple[int, ...]) -> tuple[float, int, int]:
    """The variance of a difference between training runs, its degrees of freedom, and how many arms lent theirs.

    `widths`: the numbers of seeds of the fitted arms of the difference. `shared`: the seeds that pair two fitted arms;
    empty where seeds are not paired.
    """
    if len(shared) > 1:
        spread = scores.paired(shared)
        return 2 * spread.square / len(shared), spread.df, spread.arms
    spread = scores.unpaired
    if not widths or not spread.df:
        return 0.0, 1, 0
    return spread.square * sum(1 / width for width in widths), spread.df, spread.arms


def _seed_means(values: Floats) -> Floats:
    """The mean of each seed over the items that all seeds have, shape (seeds,); nan where there is none."""
    complete = values[np.isfinite(values).all(axis=1)]
    return np.asarray(complete.mean(axis=0) if len(complete) else np.full(values.shape[1], np.nan), dtype=np.float64)


def _counted_twice(
    values: list[Floats], sides: list[str], fitted: list[str], paired: bool, index: Ints, counts: Floats
) -> float:
    """The variance of D that both V_examples and V_seeds hold: that of clusters x seeds, beyond what clusters and seeds
    explain."""
    if paired:
        tables = [values[0] - values[1]]
    else:
        tables = [side for side, name in zip(values, sides, strict=True) if name in fitted]
    total = 0.0
    for table in tables:
        seeds = table.shape[1]
        sums = np.stack([np.bincount(index, weights=column) for column in table.T], axis=1)
        rest = (sums - counts[:, None] * (table.mean(axis=0) - table.mean())) / counts.mean()
        rest = rest - rest.mean(axis=1, keepdims=True)
        n = len(counts)
        if n > 1 and seeds > 1:
            total += float(np.square(rest).sum()) / ((n - 1) * (seeds - 1)) / (n * seeds)
    return total
