"""The share of a parent's gain that an arm keeps: Fieller's interval, and its chart."""

from __future__ import annotations

import math
import random

import polars as pl
import pytest

import fake_results as fake
from imprint.charts import Eval, _drawing, kept
from imprint.statistics import shares
from imprint.statistics.shares import Difference


def test_a_parent_keeps_all_of_its_own_gain() -> None:
    gain = Difference(0.2, 0.05)
    assert shares.kept(gain, gain, Difference(0.0, 0.0)) == pytest.approx((1.0, 1.0, 1.0))


def test_nothing_is_said_where_the_parent_may_have_gained_nothing() -> None:
    assert shares.kept(Difference(0.2, 0.05), Difference(0.04, 0.05), Difference(0.16, 0.05)) is None


def test_a_sure_gain_divides_the_interval() -> None:
    share = shares.kept(Difference(0.1, 0.04), Difference(0.2, 1e-9), Difference(-0.1, 0.04))
    assert share == pytest.approx((0.5, 0.3, 0.7))


@pytest.mark.parametrize("seed", range(50))
def test_the_interval_ends_where_fieller_says(seed: int) -> None:
    draw = random.Random(seed)
    arm, parent = (Difference(draw.uniform(-1, 1), draw.uniform(0.01, 0.4)) for _ in range(2))
    together = draw.uniform(-1, 1) * arm.half_width * parent.half_width
    between = Difference(arm.value - parent.value, math.sqrt(arm.half_width**2 + parent.half_width**2 - 2 * together))
    share = shares.kept(arm, parent, between)
    if share is None:
        assert abs(parent.value) <= parent.half_width
        return
    assert share.low <= share.value <= share.high
    for end in (share.low, share.high):
        half_width = math.sqrt(arm.half_width**2 - 2 * end * together + end**2 * parent.half_width**2)
        assert abs(arm.value - end * parent.value) == pytest.approx(half_width, rel=1e-6)


def test_the_interval_holds_the_true_share_as_often_as_it_says() -> None:
    draw, hits, told = random.Random(0), 0, 0
    for _ in range(4000):
        common, own, parents = (draw.gauss(0, 0.03) for _ in range(3))
        arm, parent = 0.12 + common + own, 0.2 + common + parents
        half_width = 1.96 * 0.03 * math.sqrt(2)
        share = shares.kept(
            Difference(arm, half_width), Difference(parent, half_width), Difference(arm - parent, half_width)
        )
        if share:
            told += 1
            hits += share.low <= 0.6 <= share.high
    assert told > 3900 and 0.94 < hits / told < 0.96


ARMS = ["base", "left", "right", "both"]


def _tables(direction: int) -> dict[str, pl.DataFrame]:
    """`left` gains 0.4 +- 0.1 over `base`, `right` 0.05 +- 0.1, and `both` keeps half of the gain of `left`."""

    def row(arm: str, control: str, difference: float, half_width: float) -> dict[str, object]:
        value = direction * difference
        ends = {"ci_low": value - half_width, "ci_high": value + half_width}
        more = {"eval": "sums", "metric": "m", "primary": True, "direction": direction, "difference": value, **ends}
        return {"arm": arm, "control": control, **more, "interval": "t", "n_pairs": 9}

    pairs = [row("base", "left", -0.4, 0.1), row("base", "right", -0.05, 0.1), row("both", "base", 0.2, 0.1)]
    pairs += [row("left", "both", 0.2, 0.1), row("right", "both", -0.15, 0.1), row("left", "right", 0.35, 0.1)]
    compared = [row("left", "base", 0.4, 0.1), row("right", "base", 0.05, 0.1), row("both", "left", -0.2, 0.1)]
    return {
        "comparisons": fake.frame("comparisons", [*compared, row("both", "right", 0.15, 0.1)]),
        "pairs": fake.frame("pairs", pairs),
    }


@pytest.mark.parametrize("direction", [1, -1], ids=["higher is better", "lower is better"])
def test_shares_are_of_clear_gains_over_the_parents_own_control(direction: int) -> None:
    (row,) = kept.shares(_tables(direction), ARMS, {"sums": Eval()})
    assert (row["arm"], row["parent"], row["base"]) == ("both", "left", "base")
    assert row["share"] == pytest.approx(0.5) and row["low"] < 0.5 < row["high"]


def test_the_chart_says_its_numbers() -> None:
    text = _drawing.svg(kept.chart(_tables(1), ARMS, {"sums": Eval()}))
    assert "both keeps 0.50" in text and "share of the gain of left over base" in text


def test_no_clear_gain_gives_no_chart() -> None:
    tables = _tables(1)
    wide = tables["pairs"].with_columns(ci_low=pl.col("difference") - 1.0, ci_high=pl.col("difference") + 1.0)
    assert kept.chart({**tables, "pairs": wide}, ARMS, {"sums": Eval()}) is None
