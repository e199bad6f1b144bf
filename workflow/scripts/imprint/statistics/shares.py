"""The share of one arm's gain that another arm keeps: (arm - base) / (parent - base), with Fieller's interval.

The interval holds all shares r for which (arm - base) - r (parent - base) may be 0 (Fieller 1954, J. R. Stat. Soc. B
16). It needs the two gains' intervals and how they vary together, which the interval of arm - parent says:
2 cov(a, b) = var(a) + var(b) - var(a - b). All three are on the same examples and seeds.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Difference(NamedTuple):
    """A difference of two arms, and the half-width of its interval. Both have the metric's unit."""

    value: float
    half_width: float


class Share(NamedTuple):
    """A share, and its interval. 1 is all of the parent's gain."""

    value: float
    low: float
    high: float


def kept(arm: Difference, parent: Difference, between: Difference) -> Share | None:
    """The share of the parent's gain that the arm keeps. `arm`: arm minus base, `parent`: parent minus base, `between`:
    arm minus parent. None where the parent's interval holds 0, since the share is then not bounded."""
    if abs(parent.value) <= parent.half_width:
        return None
    together = (arm.half_width**2 + parent.half_width**2 - between.half_width**2) / 2
    limit = arm.half_width * parent.half_width
    # The half-widths may have different degrees of freedom, by which they can pass the limit of a covariance.
    together = max(-limit, min(limit, together))
    scale = parent.value**2 - parent.half_width**2
    centre = arm.value * parent.value - together
    spread = centre**2 - scale * (arm.value**2 - arm.half_width**2)
    half = math.sqrt(max(0.0, spread))
    return Share(arm.value / parent.value, (centre - half) / scale, (centre + half) / scale)
