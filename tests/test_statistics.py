"""The statistics library: intervals against published values, contrasts against closed forms and by their symmetries,
answers by simulation. benchmarks/coverage.py simulates a whole grid of designs."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from imprint.statistics.contrasts import Scores, contrast
from imprint.statistics.intervals import paired_score, tango, wilson
from imprint.statistics.looks import DRAWS, Look, Z, boundary, may_be_spent
from imprint.statistics.planning import needs, reach, variances
from imprint.statistics.questions import Answer, Question, answers, correlations, outcome, side

Floats = np.ndarray


def scores(fitted: dict[str, Floats], unfitted: dict[str, Floats], clusters: Floats | None = None) -> Scores:
    """Scores of arms: arm -> values of shape (items, seeds). Seeds are numbered from 0."""
    values = {**fitted, **unfitted}
    items = len(next(iter(values.values())))
    return Scores(
        clusters=np.arange(items) if clusters is None else clusters,
        values=values,
        seeds={arm: tuple(range(of_arm.shape[1])) for arm, of_arm in values.items()},
        fitted=frozenset(fitted),
    )


def column(*values: float) -> Floats:
    return np.array(values, dtype=float)[:, None]


def drawn(rng: np.random.Generator, n: int, seeds: int, seed_sd: float, gain: float = 0.0, arms: int = 4) -> Scores:
    """Arms a0, a1, ... and an unfitted control, on the same items. a0 is better by `gain`."""
    item = rng.standard_normal((n, 1))
    fitted = {
        f"a{k}": item + gain * (k == 0) + rng.normal(0, seed_sd, seeds) + 0.3 * rng.standard_normal((n, seeds))
        for k in range(arms)
    }
    return scores(fitted, {"base": item + 0.3 * rng.standard_normal((n, 1))})


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
    assert wilson(successes, n, Z) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_estimate_and_is_symmetric(case: tuple[int, int]) -> None:
    k, n = case
    low, high = wilson(k, n, Z)
    assert 0 <= low <= k / n <= high <= 1
    assert low < high
    assert wilson(n - k, n, Z) == pytest.approx((1 - high, 1 - low))


def test_wilson_coverage_is_exact_on_average() -> None:
    n = 32
    bounds = [wilson(k, n, Z) for k in range(n + 1)]
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
    # the others: constrained maximum likelihood by golden section, and bisection of the score
    [
        (1, 7, 21, -0.517, -0.026),
        (12, 2, 50, 0.0611, 0.3447),
        (150, 86, 1600, 0.0214, 0.0590),
        (14, 3, 64, 0.0508, 0.2986),
    ],
)
def test_tango_published_value(wins: int, losses: int, n: int, low: float, high: float) -> None:
    assert tango(wins, losses, n, Z) == pytest.approx((low, high), abs=1e-3)


@pytest.mark.parametrize("n", [1, 2, 5, 30, 64, 541])
def test_tango_without_discordant_pairs_is_no_point(n: int) -> None:
    bound = Z**2 / (n + Z**2)
    assert tango(0, 0, n, Z) == pytest.approx((-bound, bound), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)).filter(any))
def test_tango_is_antisymmetric_and_holds_the_estimate(case: tuple[int, int, int]) -> None:
    wins, losses, same = case
    n = wins + losses + same
    low, high = tango(wins, losses, n, Z)
    assert -1 <= low <= (wins - losses) / n <= high <= 1
    assert tango(losses, wins, n, Z) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(("win", "loss"), [(0.1, 0.1), (0.25, 0.05), (0.02, 0.01), (0.5, 0.2)])
def test_tango_coverage(win: float, loss: float) -> None:
    n, covered = 24, 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            ways = math.comb(n, a) * math.comb(n - a, b)
            chance = ways * win**a * loss**b * (1 - win - loss) ** (n - a - b)
            if chance > 1e-7:
                low, high = tango(a, b, n, Z)
                covered += chance * (low <= win - loss <= high)
    assert covered > 0.93


def test_the_score_statistic_is_the_dual_of_the_interval() -> None:
    low, high = tango(9, 2, 64, Z)
    assert paired_score(9, 2, 64, low) == pytest.approx(Z)
    assert paired_score(9, 2, 64, high) == pytest.approx(-Z)
    assert paired_score(9, 2, 64, 0.0) == pytest.approx(7 / math.sqrt(11))  # McNemar


def test_without_training_the_interval_is_students() -> None:
    rng = np.random.default_rng(0)
    arm, control = rng.standard_normal((2, 30, 1))
    compared = contrast(scores({}, {"arm": arm, "base": control}), "arm", "base")
    assert compared is not None
    expected = ttest_1samp((arm - control)[:, 0], 0).confidence_interval(0.95)
    assert compared.interval(Z) == pytest.approx((expected.low, expected.high))


def test_items_of_a_cluster_count_once() -> None:
    """Four copies of each item say no more than one copy."""
    rng = np.random.default_rng(1)
    arm, control = rng.standard_normal((2, 20, 1))
    once = contrast(scores({}, {"arm": arm, "base": control}), "arm", "base")
    copied = scores({}, {"arm": np.repeat(arm, 4, 0), "base": np.repeat(control, 4, 0)}, np.repeat(np.arange(20), 4))
    copies = contrast(copied, "arm", "base")
    assert once is not None and copies is not None
    assert copies.clusters == 20
    assert copies.interval(Z) == pytest.approx(once.interval(Z))


def test_seeds_of_equal_number_are_paired() -> None:
    """A seed that is good for both arms says nothing about their difference."""
    rng = np.random.default_rng(2)
    luck = np.array([0.0, 5.0, -5.0])
    noise = 0.1 * rng.standard_normal((3, 40, 3))
    table = {f"a{k}": noise[k] + luck for k in range(3)}
    paired = contrast(scores(table, {}), "a0", "a1")
    against_base = contrast(scores(table, {"base": np.zeros((40, 1))}), "a0", "base")
    assert paired is not None and against_base is not None
    assert paired.se < 0.05
    assert against_base.se == pytest.approx(5 / math.sqrt(3), rel=0.05)


def test_the_seeds_part_in_closed_form() -> None:
    """Without variation between items, the variance is that of the seeds' means, pooled over fitted arms."""
    means = np.array([[0.1, 0.3, 0.2], [0.5, 0.4, 0.9]])
    table = {f"a{k}": np.tile(means[k], (10, 1)) for k in range(2)}
    compared = contrast(scores(table, {"base": np.zeros((10, 1))}), "a0", "base")
    assert compared is not None
    assert compared.v_examples == 0
    assert compared.v_seeds == pytest.approx(means.var(axis=1, ddof=1).mean() / 3)
    assert compared.df == pytest.approx(4)
    paired = contrast(scores(table, {}), "a0", "a1")
    assert paired is not None
    assert paired.v_seeds == pytest.approx((means[0] - means[1]).var(ddof=1) / 3)
    assert paired.df == pytest.approx(2)


def test_a_missing_score_takes_its_item_out() -> None:
    rng = np.random.default_rng(3)
    arm = rng.standard_normal((9, 3))
    holes = arm.copy()
    holes[4, 1] = np.nan
    whole = contrast(scores({"arm": holes}, {"base": np.zeros((9, 1))}), "arm", "base")
    assert whole is not None
    assert (whole.clusters, whole.missing) == (8, 1)
    assert whole.difference == pytest.approx(np.delete(arm, 4, 0).mean())
    assert contrast(scores({}, {"arm": np.full((3, 1), np.nan), "base": np.zeros((3, 1))}), "arm", "base") is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(6, 30), st.integers(1, 4), st.booleans())
def test_swapping_the_arms_mirrors_everything(seed: int, n: int, seeds: int, binary: bool) -> None:
    table = drawn(np.random.default_rng(seed), n, seeds, 0.2)
    if binary:
        table = Scores(
            table.clusters, {a: (v > 0).astype(float) for a, v in table.values.items()}, table.seeds, table.fitted
        )
    for pair in (("a0", "a1"), ("a0", "base")):
        there, back = contrast(table, *pair), contrast(table, *pair[::-1])
        assert there is not None and back is not None
        assert (there.difference, there.wins) == (pytest.approx(-back.difference), back.losses)
        if there.known:
            assert there.interval(Z) == pytest.approx(tuple(-end for end in back.interval(Z)[::-1]), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "known"),
    [
        ([1.0, 1, 1, 1, 1, 1], True),  # all won: a score interval
        ([0.0] * 6, True),
        ([0.25] * 6, False),  # no variation
        ([0.1] * 6, False),  # none but for rounding
        ([1.0, 0, 1, 0], False),  # fewer than five clusters
        ([0.5, 0, 1, 0, 0.25], True),
    ],
)
def test_degenerate_data_get_no_interval_or_a_score_interval(values: list[float], known: bool) -> None:
    table = scores({}, {"arm": column(*values), "base": np.zeros((len(values), 1))})
    compared = contrast(table, "arm", "base")
    assert compared is not None
    assert compared.known == known
    if known:
        low, high = compared.interval(Z)
        assert low <= compared.difference <= high and low < high


def test_a_large_family_can_still_decide() -> None:
    """With sign flips and a correction by the number of tests, 501 tests of 40 texts could never be decided."""
    rng = np.random.default_rng(4)
    arms = {f"a{k}": 0.2 + 0.02 * rng.standard_normal((40, 1)) for k in range(501)}
    table = scores({}, {**arms, "base": np.zeros((40, 1))})
    found = answers([Question(arm, arm, "base", "texts") for arm in arms], {"texts": table})
    assert {answer.verdict for answer in found} == {"better"}


def one(question: Question, table: Scores) -> Answer:
    (answer,) = answers([question], {question.eval: table})
    return answer


def test_one_seed_is_never_better() -> None:
    table = drawn(np.random.default_rng(5), 200, 1, 0.0, gain=1.0)
    answer = one(Question("q", "a0", "a1", "e"), table)
    assert (answer.verdict, answer.scope) == ("higher", "weights")
    compared = contrast(table, "a0", "a1")
    assert compared is not None and answer.seed_sd is not None
    # At this spread of training runs, the interval would just touch zero.
    assert Z * math.sqrt(compared.v_examples + 2 * answer.seed_sd**2) == pytest.approx(compared.difference, rel=0.02)


def test_given_weights_are_one_training_run_at_any_number_of_seeds() -> None:
    """Their seeds, which a sampled eval has, show other draws of the answers and no other runs."""
    rng = np.random.default_rng(7)
    base = rng.standard_normal((60, 1))
    for seeds in (1, 3):
        taken = base + 1 + 0.3 * rng.standard_normal((60, seeds))
        own = base + 2 + 0.3 * rng.standard_normal((60, 3))
        both = replace(scores({"own": own}, {"taken": taken, "base": base}), single=frozenset({"taken"}))
        for arm, control in (("taken", "base"), ("own", "taken")):
            (answer,) = answers([Question("q", arm, control, "e")], {"e": both})
            assert (answer.verdict, answer.scope) == ("higher", "weights")
        against_base = contrast(both, "taken", "base")
        assert against_base is not None and (against_base.seeds, against_base.v_seeds) == (0, 0.0)
        against_own = contrast(both, "own", "taken")
        assert against_own is not None and against_own.seeds == 3, "all seeds of the other arm count"
        assert against_own.v_seeds is not None and against_own.v_seeds > 0, "and so does their spread"
        assert against_own.difference == pytest.approx(own.mean() - taken.mean())


def test_arms_that_are_not_trained_need_no_seeds() -> None:
    table = scores({}, {"arm": np.linspace(0.4, 0.6, 30)[:, None], "base": np.zeros((30, 1))})
    assert one(Question("q", "arm", "base", "e"), table).verdict == "better"
    assert one(Question("q", "arm", "base", "e", direction=-1), table).verdict == "worse"


@pytest.mark.parametrize(
    ("mean", "kind", "margin", "direction", "verdict"),
    [
        (0.0, "retention", 0.1, 1, "kept"),
        (-0.05, "retention", 0.1, 1, "kept"),
        (-0.1, "retention", 0.1, 1, "undecided"),
        (-0.2, "retention", 0.1, 1, "lost"),
        (0.2, "retention", 0.1, -1, "lost"),
        (0.2, "retention", 0.1, 1, "kept"),
        (0.05, "equivalence", 0.1, 1, "equivalent"),
        (0.2, "equivalence", 0.1, 1, "better"),
        (-0.2, "equivalence", 0.1, 1, "worse"),
        (0.0, "gain", 0.0, 1, "undecided"),
    ],
)
def test_words(mean: float, kind: str, margin: float, direction: int, verdict: str) -> None:
    noise = np.linspace(-0.1, 0.1, 101)[:, None]
    table = scores({}, {"arm": mean + noise, "base": np.zeros((101, 1))})
    answer = one(Question("q", "arm", "base", "e", kind, margin, direction), table)  # type: ignore[arg-type]
    assert answer.verdict == verdict


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(-0.6, 0.6), st.integers(2, 4), st.integers(1, 5))
def test_the_interval_alone_makes_the_verdict(seed: int, gain: float, seeds: int, tests: int) -> None:
    table = drawn(np.random.default_rng(seed), 40, seeds, 0.1, gain)
    family = [
        Question(f"q{k}", "a0", control, "e") for k, control in enumerate(["base", "a1", "a2", "a3", "base"][:tests])
    ]
    for answer in answers(family, {"e": table}):
        assert answer.low is not None and answer.high is not None and answer.p is not None
        excludes = answer.low > 0 or answer.high < 0
        assert (answer.verdict != "undecided") == excludes
        assert (answer.p < 0.05) == excludes or abs(answer.p - 0.05) < 1e-3


def test_without_a_discordant_pair_the_smallest_difference_is_not_zero() -> None:
    table = scores({}, {"arm": np.zeros((64, 1)), "base": np.zeros((64, 1))})
    gain = one(Question("q", "arm", "base", "e"), table)
    assert gain.smallest == pytest.approx(Z**2 / (64 + Z**2) * (1 + 0.8416 / Z), rel=0.03)
    kept = one(Question("q", "arm", "base", "e", "retention", 0.03), table)
    assert kept.verdict == "undecided" and kept.examples_needed is not None and kept.examples_needed > 64


@pytest.mark.parametrize(("direction", "expected"), [(1, "good"), (-1, "bad")])
def test_a_higher_value_is_welcome_where_higher_is_better(direction: int, expected: str) -> None:
    table = drawn(np.random.default_rng(10), 200, 1, 0.0, gain=1.0)
    answer = one(Question("q", "a0", "a1", "e", direction=direction), table)
    assert answer.verdict == "higher"
    assert outcome(answer.verdict, direction) == expected
    assert outcome("undecided", direction) == outcome("not tested", direction) == "open"


def test_more_questions_widen_the_interval_and_related_ones_less() -> None:
    rng = np.random.default_rng(6)
    table = drawn(rng, 60, 3, 0.05)
    alone = one(Question("q", "a0", "base", "e"), table)
    questions = [Question(f"q{k}", f"a{k}", "base", "e") for k in range(4)]
    related = answers(questions, {"e": table})[0]
    places = {f"e{k}": drawn(rng, 60, 3, 0.05) for k in range(3)} | {"e": table}
    apart = answers([questions[0], *(Question(f"p{k}", "a0", "base", f"e{k}") for k in range(3))], places)[0]
    widths = [answer.high - answer.low for answer in (alone, related, apart) if answer.high and answer.low]
    assert widths == sorted(widths) and widths[0] < 0.95 * widths[2]


def test_the_critical_value_of_independent_questions_is_sidaks() -> None:
    z = boundary(np.eye(4)).z
    assert z == pytest.approx(2.491, abs=0.02)
    assert boundary(np.ones((4, 4))).z == pytest.approx(Z, abs=0.02)


def test_correlations_follow_from_shared_arms() -> None:
    """Two arms against one control that alone varies between items: their differences move together."""
    rng = np.random.default_rng(7)
    base = rng.standard_normal((50, 1))
    table = scores(
        {}, {"a": 0.01 * rng.standard_normal((50, 1)), "b": 0.01 * rng.standard_normal((50, 1)), "base": base}
    )
    pair = [contrast(table, arm, "base") for arm in ("a", "b")]
    matrix = correlations([("e", c) for c in pair if c is not None])
    assert matrix[0, 1] > 0.99
    apart = correlations([("e", pair[0]), ("f", pair[1])])  # type: ignore[list-item]
    assert apart[0, 1] == 0


def test_what_would_settle_a_question_settles_it() -> None:
    steady = contrast(drawn(np.random.default_rng(13), 60, 3, 0.0, gain=0.05), "a0", "a1")
    spread = contrast(drawn(np.random.default_rng(13), 500, 3, 0.1, gain=0.15), "a0", "a1")
    assert steady is not None and spread is not None
    of_steady, of_spread = variances(steady, Z), variances(spread, Z)
    assert of_steady is not None and of_spread is not None
    examples, _ = needs(of_steady, Z, 60, 3, steady.difference)
    _, seeds = needs(of_spread, Z, 500, 3, spread.difference)
    assert examples is not None and examples > 60
    assert reach(of_steady, Z, examples, 3) < steady.difference <= reach(of_steady, Z, examples - 1, 3)
    assert seeds is not None and seeds > 3
    assert reach(of_spread, Z, 500, seeds) < spread.difference <= reach(of_spread, Z, 500, seeds - 1)


def test_the_variances_of_a_contrast_add_up_to_its_own() -> None:
    compared = contrast(drawn(np.random.default_rng(2), 90, 4, 0.3), "a0", "base")
    assert compared is not None
    apart = variances(compared, Z)
    assert apart is not None and apart.lending == 4
    total = apart.of_examples / 90 + apart.of_answers / (90 * 4) + apart.of_runs / 4
    assert total == pytest.approx(compared.se**2)


def test_more_seeds_also_lower_what_one_run_adds_to_the_examples() -> None:
    """Training runs that agree on the mean and differ item by item: eight times the seeds leave an eighth of that."""
    compared = contrast(drawn(np.random.default_rng(3), 400, 3, 0.0), "a0", "a1")
    assert compared is not None
    apart = variances(compared, Z)
    assert apart is not None and apart.of_answers > apart.of_examples
    assert reach(apart, Z, 400, 24) < 0.6 * reach(apart, Z, 400, 3)


@pytest.mark.parametrize("control", ["a1", "base"])
@pytest.mark.parametrize("seed_sd", [0.1, 0.3])
def test_a_plan_of_what_is_there_says_what_the_answer_says(seed_sd: float, control: str) -> None:
    data = drawn(np.random.default_rng(4), 80, 3, seed_sd)
    compared, answer = contrast(data, "a0", control), one(Question("q", "a0", control, "e"), data)
    assert compared is not None and compared.v_seeds and answer.smallest is not None
    components = variances(compared, boundary(np.ones((1, 1))).z)
    assert components is not None
    assert reach(components, boundary(np.ones((1, 1))).z, 80, 3) == pytest.approx(answer.smallest, rel=0.1)


def test_one_seed_says_nothing_of_training_runs() -> None:
    compared = contrast(drawn(np.random.default_rng(3), 40, 1, 0.2), "a0", "a1")
    assert compared is not None
    apart = variances(compared, Z)
    assert apart is not None and apart.of_runs is None and apart.of_examples > 0


@pytest.mark.parametrize(
    ("share", "error"), [(0.25, 8.86e-5), (0.5, 0.00557), (0.75, 0.02363), (1.0, 0.05), (1.5, 0.05)]
)
def test_the_error_is_spent_as_lan_and_demets_do(share: float, error: float) -> None:
    assert may_be_spent(share) == pytest.approx(error, rel=2e-3)


def test_boundaries_of_several_looks() -> None:
    """The first boundary has a closed form. The last one was integrated numerically: 1.9793."""
    half = boundary(np.ones((1, 1)), 0.5)
    whole = boundary(np.ones((1, 1)), 1.0, [Look(0.5, half.spent)])
    assert half.z == pytest.approx(Z / math.sqrt(0.5), abs=0.1)
    assert whole.z == pytest.approx(1.9793, abs=0.03)
    assert boundary(np.ones((1, 1)), 0.1).z == math.inf, "too early"
    assert boundary(np.ones((1, 1)), 1.0, [Look(0.8, 0.05)]).z == math.inf, "nothing is left"


def test_repeated_looks_stay_within_the_error() -> None:
    """Twelve hundred experiments without an effect, each looked at four times as it grows."""
    rng = np.random.default_rng(8)
    shares, wrong, naive, runs = (0.25, 0.5, 0.75, 1.0), 0, 0, 1200
    limits = [boundary(np.eye(2), share, [Look(s, may_be_spent(s)) for s in shares if s < share]).z for share in shares]
    for _ in range(runs):
        steps = rng.standard_normal((4, 2)).cumsum(axis=0) * 0.5
        statistics = np.abs(steps).max(axis=1) / np.sqrt(shares)
        wrong += bool((statistics > limits).any())
        naive += bool((statistics > boundary(np.eye(2)).z).any())
    assert wrong / runs < 0.066
    assert naive / runs > 0.08


def test_p_is_below_the_level_if_and_only_if_the_boundary_is_passed() -> None:
    limit = boundary(np.eye(3), 1.0, [Look(0.5, may_be_spent(0.5))])
    assert limit.past > 0
    assert limit.p(limit.z + 0.01) < 0.05 < limit.p(limit.z - 0.01)
    assert limit.p(20.0) == pytest.approx((1 + limit.past) / (1 + DRAWS))


def test_a_margin_is_as_hard_to_show_as_a_difference_and_equivalence_harder() -> None:
    data = drawn(np.random.default_rng(1), 80, 3, 0.1)
    gain = one(Question("q", "a0", "a1", "e"), data)
    kept = one(Question("q", "a0", "a1", "e", "retention", 0.1), data)
    equal = one(Question("q", "a0", "a1", "e", "equivalence", 0.1), data)
    assert gain.smallest is not None and kept.smallest is not None and equal.smallest is not None
    assert gain.smallest == pytest.approx(kept.smallest)
    assert equal.smallest > kept.smallest


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.3])
def test_coverage_where_few_clusters_differ(rate: float) -> None:
    """0/1 items in 60 clusters of three; the arm loses some, and wins none. Student's interval without the adjustment
    covers 86% at a rate of 0.05."""
    rng = np.random.default_rng(5)
    covered, runs, truth = 0, 600, -0.5 * 0.7 * rate
    for _ in range(runs):
        base = rng.random((60, 3)) < 0.5
        lost = (rng.random((60, 3)) < rate) & (rng.random((60, 1)) < 0.7)
        values = {"arm": base & ~lost, "base": base}
        labels = np.repeat(np.arange(60), 3)
        data = scores({}, {name: of.reshape(-1, 1).astype(float) for name, of in values.items()}, labels)
        answer = one(Question("q", "arm", "base", "e"), data)
        assert answer.low is not None and answer.high is not None
        covered += answer.low <= truth <= answer.high
    assert covered / runs > 0.925


@pytest.mark.parametrize("control", ["a1", "base"])
@pytest.mark.parametrize("seed_sd", [0.0, 0.1, 0.3])
def test_coverage_with_three_seeds(seed_sd: float, control: str) -> None:
    rng = np.random.default_rng(9)
    covered = 0
    for _ in range(600):
        answer = one(Question("q", "a0", control, "e"), drawn(rng, 64, 3, seed_sd))
        assert answer.low is not None and answer.high is not None
        covered += answer.low <= 0 <= answer.high
    assert 0.925 < covered / 600 < 0.99


def test_the_library_imports_no_other_part_of_imprint() -> None:
    code = (
        "import sys, imprint.statistics.questions\n"
        "names = [n for n in sys.modules if n.startswith('imprint.') and not n.startswith('imprint.statistics')]\n"
        "assert not names, names\n"
        "assert 'polars' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "lower_is_better"),
    [
        (0.1, 0.3, "good", "bad"),
        (-0.3, -0.1, "bad", "good"),
        (-0.1, 0.1, "open", "open"),
        (0.0, 0.1, "open", "open"),
        (None, None, "open", "open"),
    ],
)
def test_the_side_of_an_interval(
    low: float | None, high: float | None, higher_is_better: str, lower_is_better: str
) -> None:
    assert (side(low, high, 1), side(low, high, -1)) == (higher_is_better, lower_is_better)
