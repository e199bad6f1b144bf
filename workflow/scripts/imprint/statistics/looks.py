"""The critical value of a family of questions, at the first look at the data or at a later one.

All questions of an experiment are one family: the chance that any of its answers is wrong is at most ERROR. The
critical value is that of the largest |Z| of the family under the null hypotheses (Westfall and Young 1993,
Resampling-Based Multiple Testing, single step).

Whoever judges an experiment on a part of its planned data, and again on more of it, may be wrong at each look. The
error is therefore spent over the looks, by the rule of Lan and DeMets (1983, Biometrika 70) that resembles O'Brien and
Fleming's boundaries (1979, Biometrics 35): at a share t of the planned data, 2 - 2 Phi(z / sqrt(t)) may be spent in
all, with z = 1.96. An early look costs later looks hardly anything, and decides hardly anything. At the planned end all
is spent, and data beyond the plan decide nothing more.

The statistics of a look at share t are those of Brownian motion at time t over sqrt(t), with the correlations of the
family's differences.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from imprint.statistics.contrasts import Floats

LEVEL = 0.95
ERROR = 0.05
DRAWS = 40_000
NORMAL = NormalDist()
Z = NORMAL.inv_cdf((1 + LEVEL) / 2)


class Look(NamedTuple):
    """An earlier look: its share of the planned data, and the error that was spent by then, over all looks."""

    share: float
    spent: float


@dataclass(frozen=True)
class Boundary:
    """What the largest |Z| must pass at this look.

    `z`: the critical value; infinite where nothing may be spent at this look. `spent`: the error spent by now, over all
    looks. `past`: how many of DRAWS experiments without any effect passed an earlier boundary. `largest`: the largest
    |Z| at this look in each experiment that passed none, in ascending order."""

    z: float
    spent: float
    past: int
    largest: Floats

    def p(self, z: float) -> float:
        """The share of experiments without any effect in which some statistic of the family is as far out as `z` at
        this look, or passed the boundary of an earlier one."""
        as_far = len(self.largest) - int(np.searchsorted(self.largest, z * (1 - 1e-12)))
        return (1 + self.past + as_far) / (1 + DRAWS)


def may_be_spent(share: float) -> float:
    """The error that looks up to this share of the planned data, above 0, may spend in all."""
    return ERROR if share >= 1 else 2 * (1 - NORMAL.cdf(Z / math.sqrt(share)))


def spent_by(share: float, earlier: Sequence[Look]) -> float:
    """The error that is spent by a look at this share, over all looks."""
    return max(may_be_spent(share), *(look.spent for look in earlier), 0.0)


def boundary(correlation: Floats, share: float = 1.0, earlier: Sequence[Look] = ()) -> Boundary:
    """The boundary at a look at this share of the planned data, of a family with these correlations, shape (m, m).
    `earlier`: the looks before this one, at smaller shares, in ascending order."""
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    motion, time, spent_before, past = np.zeros((DRAWS, len(correlation))), 0.0, 0.0, 0
    inside = np.ones(DRAWS, dtype=bool)
    looks = [*earlier, Look(share, spent_by(share, earlier))]
    for number, look in enumerate(looks):
        motion = motion + math.sqrt(look.share - time) * (_normals(number, len(correlation)) @ root.T)
        time = look.share
        largest = np.abs(motion).max(axis=1) / math.sqrt(time)
        past = DRAWS - int(inside.sum())
        ascending = np.sort(largest[inside])
        z = _quantile(ascending, round((look.spent - spent_before) * DRAWS))
        inside &= largest <= z
        spent_before = look.spent
    return Boundary(z, spent_before, past, ascending)


def _quantile(ascending: Floats, above: int) -> float:
    """The value that `above` of the draws exceed; infinite if none may."""
    if not above or not len(ascending):
        return math.inf
    return float((ascending[-above] + ascending[-above - 1]) / 2) if above < len(ascending) else 0.0


@functools.cache
def _normals(look: int, size: int) -> Floats:
    return np.random.default_rng([look, size]).standard_normal((DRAWS, size))
