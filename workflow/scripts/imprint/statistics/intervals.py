"""Score intervals of proportions, and of differences of paired proportions."""

from __future__ import annotations

import math

from scipy.optimize import brentq


def wilson(successes: float, n: int, z: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion, n >= 1 (Wilson 1927, J. Am. Stat. Assoc. 22). `z` is the critical value
    of the standard normal distribution, 1.96 for 95%."""
    p, shrink = successes / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    return max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p))


def paired_score(wins: int, losses: int, n: int, delta: float) -> float:
    """Tango's score statistic of the hypothesis that the difference of paired proportions is `delta`, n >= 1 (Tango
    1998, Stat. Med. 17, eqs. 6-9). It is standard normal if the hypothesis holds, and positive if the difference is
    larger. At delta 0 it is McNemar's statistic, (wins - losses) / sqrt(wins + losses)."""
    b = (2 * n - wins + losses) * delta - wins - losses
    losing = (math.sqrt(max(0.0, b * b + 8 * n * losses * delta * (1 - delta))) - b) / (4 * n)
    variance = n * (2 * losing + delta * (1 - delta))
    gap = wins - losses - n * delta
    if variance <= 1e-12 * n:
        return 0.0 if abs(gap) < 1e-9 * n else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)


def tango(wins: int, losses: int, n: int, z: float) -> tuple[float, float]:
    """Tango's interval of a difference of paired proportions (wins - losses) / n, n >= 1: the hypotheses whose
    `paired_score` lies within +-z."""
    estimate = (wins - losses) / n

    def bound(end: float, target: float) -> float:
        if abs(end - estimate) < 1e-12 or abs(paired_score(wins, losses, n, end)) < z:
            return end
        return float(
            brentq(
                lambda delta: max(-1e9, min(1e9, paired_score(wins, losses, n, delta))) - target,
                end,
                estimate,
                xtol=1e-12,
            )
        )

    return min(bound(-1.0, z), estimate), max(bound(1.0, -z), estimate)
