"""Statistics against closed forms and published values, by their symmetries, and by the coverage of their intervals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.statistics import stats
from imprint.statistics.stats import Clustered, Difference


def cell(values: list[float] | np.ndarray, counts: list[float] | np.ndarray | None = None) -> Clustered:
    sums = np.asarray(values, dtype=float)
    held = np.ones(len(sums)) if counts is None else np.asarray(counts, dtype=float)
    binary = bool(np.isin(sums, [-1.0, 0.0, 1.0]).all()) and counts is None
    return Clustered(sums, held, binary, counts is None)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe 1998, Stat. Med. 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert stats.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_estimate_and_is_symmetric(case: tuple[int, int]) -> None:
    k, n = case
    low, high = stats.wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert low < high
    assert stats.wilson(n - k, n) == pytest.approx((1 - high, 1 - low))


def test_wilson_coverage_is_exact_on_average() -> None:
    n = 32
    bounds = [stats.wilson(k, n) for k in range(n + 1)]
    truths = np.linspace(0.02, 0.98, 97)
    covered = [
        sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k, (low, high) in enumerate(bounds) if low <= p <= high)
        for p in truths
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) > 0.88


@pytest.mark.parametrize(
    ("wins", "losses", "n", "low", "high"),
    # Fagerland, Lydersen and Laake 2014, Stat. Med. 33:2850: the airway data (1, 1, 7, 12): -0.517 to -0.026
    [(1, 7, 21, -0.517, -0.026)],
)
def test_tango_published_value(wins: int, losses: int, n: int, low: float, high: float) -> None:
    assert stats.tango(wins, losses, n) == pytest.approx((low, high), abs=1e-3)


@pytest.mark.parametrize("n", [1, 2, 5, 30, 64, 541])
def test_tango_without_discordant_pairs_is_no_point(n: int) -> None:
    bound = stats.Z**2 / (n + stats.Z**2)
    assert stats.tango(0, 0, n) == pytest.approx((-bound, bound), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)).filter(any))
def test_tango_is_antisymmetric_and_holds_the_estimate(case: tuple[int, int, int]) -> None:
    wins, losses, same = case
    n = wins + losses + same
    low, high = stats.tango(wins, losses, n)
    assert -1 <= low <= (wins - losses) / n <= high <= 1
    assert stats.tango(losses, wins, n) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(("win", "loss"), [(0.1, 0.1), (0.25, 0.05), (0.02, 0.01), (0.5, 0.2)])
def test_tango_coverage(win: float, loss: float) -> None:
    n, covered = 24, 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            ways = math.comb(n, a) * math.comb(n - a, b)
            chance = ways * win**a * loss**b * (1 - win - loss) ** (n - a - b)
            if chance > 1e-7:
                low, high = stats.tango(a, b, n)
                covered += chance * (low <= win - loss <= high)
    assert covered > 0.93


@pytest.mark.parametrize(("wins", "losses", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (9, 2, 0.0654296875)])
def test_mcnemar_closed_form(wins: int, losses: int, p: float) -> None:
    assert stats.mcnemar(wins, losses) == stats.mcnemar(losses, wins) == pytest.approx(p)


def test_mcnemar_equals_the_exact_sign_flip_of_binary_pairs() -> None:
    for wins, losses in [(3, 1), (7, 2), (6, 6), (0, 9)]:
        pairs = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 5)
        assert stats.sign_flip(pairs, "any") == (pytest.approx(stats.mcnemar(wins, losses)), "sign_flip_exact")


def test_sign_flip_draws_agree_with_the_normal_limit() -> None:
    generator = np.random.default_rng(3)
    values = generator.normal(0.25, 1, 100)
    p, test = stats.sign_flip(values, "eval")
    z = abs(values.sum()) / math.sqrt((values**2).sum())
    assert test == "sign_flip"
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.01)
    assert stats.sign_flip(values, "eval")[0] == p
    assert stats.sign_flip(np.full(50, 0.5), "eval")[0] == 1 / (stats.SIGN_DRAWS + 1)


def test_sign_flip_keeps_its_level() -> None:
    generator = np.random.default_rng(5)
    rejected = [stats.sign_flip(generator.normal(0, 1, 10), "eval")[0] < 0.05 for _ in range(600)]
    assert np.mean(rejected) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)


def test_holm_known_values() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([None, 0.04, None]) == [None, 0.04, None]
    assert stats.holm([]) == []


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=20), st.randoms())
def test_holm_properties(p_values: list[float | None], random: object) -> None:
    adjusted = stats.holm(p_values)
    tested = sorted((p, a) for p, a in zip(p_values, adjusted, strict=True) if p is not None and a is not None)
    assert all(0 <= p <= a <= 1 for p, a in tested)
    assert all(first[1] <= second[1] for first, second in itertools.pairwise(tested))
    order = list(range(len(p_values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert stats.holm([p_values[i] for i in order]) == [adjusted[i] for i in order]


def test_weights_are_shared_within_an_eval_and_differ_between_evals() -> None:
    values = np.random.default_rng(1).normal(size=(20, 2))
    one = stats.resample("ifeval", values, np.ones((20, 2)))
    assert one.shape == (stats.RESAMPLES, 2)
    assert np.allclose(one[:, 1:], stats.resample("ifeval", values[:, 1:], np.ones((20, 1))), rtol=1e-12, atol=1e-14)
    assert not np.allclose(one, stats.resample("coat", values, np.ones((20, 2))))


def test_chunks_of_memory_do_not_change_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=(30, 3))
    whole = stats.resample("ifeval", values, np.ones((30, 3)))
    monkeypatch.setattr(stats, "_CHUNK", 1_000)
    assert np.allclose(stats.resample("ifeval", values, np.ones((30, 3))), whole, rtol=1e-12)


@pytest.mark.parametrize("clusters", [6, 16, 48])
@pytest.mark.parametrize("kind", ["normal", "pooled"])
def test_bootstrap_coverage(clusters: int, kind: str) -> None:
    """`pooled`: one to three 0/1 items a cluster that lean the same way, as instructions of one prompt do."""
    generator, runs = np.random.default_rng(11), 400
    counts = np.ones((clusters, runs))
    sums, truth = generator.normal(0, 1, (clusters, runs)), 0.0
    if kind == "pooled":
        counts = generator.integers(1, 4, (clusters, runs)).astype(float)
        sums, truth = generator.binomial(counts.astype(int), generator.beta(2, 2, counts.shape)).astype(float), 0.5
    estimates = stats.resample("coverage", sums, counts)
    bounds = np.array([stats.percentiles(estimates[:, i], clusters) for i in range(runs)])
    covered = np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1]))
    assert 0.915 <= covered <= 0.985


def test_clusters_widen_the_interval() -> None:
    values = np.array([0.0, 1.0] * 20)
    alone, repeated = stats.means("e", [cell(values, np.ones(40)), cell(4 * values, np.full(40, 4.0))])
    assert alone.method == repeated.method == "bootstrap"
    assert alone.se == pytest.approx(repeated.se)  # four equal samples of an example tell nothing new


def test_means_choose_the_method() -> None:
    some = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    found = stats.means(
        "e",
        [
            cell(some),
            cell([0.5, 2.0, 1.0, 3.0, 0.0, 1.0]),
            Clustered(np.full(6, 2.0), np.full(6, 2.0), True, False),
            cell([1 / 3] * 6),
            cell([0.5, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]),
            cell([0.0] * 6, [0.0] * 6),
            cell([1.0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]),
        ],
    )
    methods = ["wilson", "bootstrap", "wilson_clusters", "none: no variation", "none: fewer than 5 examples"]
    assert [e.method for e in found[:5]] == methods
    assert (found[5].mean, found[5].low, found[5].method) == (None, None, "none: no data")
    assert (found[0].low, found[0].high) == stats.wilson(4, 6)
    assert (found[2].low, found[2].high) == stats.wilson(6, 6)
    assert found[3].low is found[4].low is found[6].low is None


def test_differences_are_honest_about_degenerate_data() -> None:
    pairs = [cell([0.0] * 32), cell([1.0]), Clustered(np.zeros(32), np.full(32, 2.0), True, False)]
    same = stats.differences("e", pairs[:1])[0]
    assert (same.difference, same.p, same.test) == (0.0, 1.0, "mcnemar")
    assert same.low is not None and same.low < -0.1 and same.high is not None and same.high > 0.1
    one = stats.differences("e", pairs[1:2])[0]
    assert one.low is not None and one.low < -0.5 and one.p == 1.0
    pooled = stats.differences("e", pairs[2:])[0]
    assert (pooled.low, pooled.high) == (same.low, same.high)
    constant = stats.differences("e", [cell(np.full(32, 0.25), np.ones(32))])[0]
    assert (constant.low, constant.high, constant.test) == (None, None, "sign_flip")
    assert stats.differences("e", [cell([0.0], [0.0])])[0] == Difference(None, None, None, None, "none")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=1, max_size=24), st.booleans())
def test_differences_are_antisymmetric(values: list[float], binary: bool) -> None:
    gaps = np.sign(values) if binary else np.asarray(values)
    counts = None if binary else np.ones(len(gaps))
    there, back = (stats.differences("e", [cell(sign * gaps, counts)])[0] for sign in (1, -1))
    assert there.difference is not None and back.difference is not None
    assert there.p is not None and 0 < there.p <= 1
    assert there.difference == pytest.approx(-back.difference)
    assert there.p == back.p
    if there.low is not None and there.high is not None:
        assert there.low <= there.difference <= there.high
        assert (there.low, there.high) == (
            pytest.approx(-back.high, abs=1e-9),  # type: ignore[operator]
            pytest.approx(-back.low, abs=1e-9),  # type: ignore[operator]
        )
    else:
        assert back.low is None


@pytest.mark.parametrize(
    ("difference", "p_adjusted", "direction", "verdict"),
    [
        (Difference(0.2, 0.1, 0.3, 0.001, "mcnemar"), 0.01, 1, "better"),
        (Difference(0.2, 0.1, 0.3, 0.001, "mcnemar"), 0.01, -1, "worse"),
        (Difference(-0.2, -0.3, -0.1, 0.001, "mcnemar"), 0.01, -1, "better"),
        (Difference(0.2, 0.1, 0.3, 0.01, "mcnemar"), 0.05, 1, "tie"),
        (Difference(0.2, 0.0, 0.3, 0.01, "mcnemar"), 0.01, 1, "tie"),
        (Difference(0.25, None, None, 0.0001, "sign_flip"), 0.001, 1, "better"),
        (Difference(0.0, None, None, 1.0, "sign_flip"), 1.0, 1, "tie"),
        (Difference(None, None, None, None, "none"), None, 1, "no data"),
    ],
)
def test_verdicts(difference: Difference, p_adjusted: float | None, direction: int, verdict: str) -> None:
    assert stats.verdict(difference, p_adjusted, direction) == verdict
