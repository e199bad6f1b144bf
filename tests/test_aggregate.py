"""Summary and comparisons from scores: the counts, the pairing, what a failed response does, and the DuckDB file."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fake_results as fake
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.statistics import aggregate, answering, history
from imprint.statistics.intervals import tango, wilson
from imprint.statistics.looks import Z
from imprint.statistics.summarize import AskedQuestion, CurveCheck, Plan, Spec, run
from imprint.tables import database, dataset_rows

SCORES = fake.scores(24)
ARMS = {"base": ["quiz"], "tuned": ["quiz"]}
QUIZ = {"quiz": {"right": (True, 1), "cost": (False, -1), "length": (False, 0)}}
CONTROL = {"tuned": ["base"]}
NOTHING = database.Spec(arms=[], evals=[])


def quiz(rows: list[tuple[str, str, str, float | None]], **more: Any) -> pl.DataFrame:
    return fake.frame("scores", [fake.score(arm, "quiz", e, metric, v, **more) for arm, e, metric, v in rows])


def ask(scores: pl.DataFrame, curves: pl.DataFrame | None = None, **more: Any) -> dict[str, Any]:
    """The answer to a question about the quiz."""
    question = {"name": "q", "asks": "Is it better?", "arm": "tuned", "control": "base", "eval": "quiz"}
    question |= {"metric": "right", "kind": "gain", "margin": 0.0, "over": None, "check": None, **more}
    table = aggregate.Table(scores, fake.examples(scores), ARMS, QUIZ, ["tuned"])
    (row,) = answering.answer(
        table, [AskedQuestion(**question)], fake.frame("curves", []) if curves is None else curves
    )
    fake.frame("answers", [row])
    return row


def by_metric(rows: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    (row,) = [row for row in rows if row["metric"] == metric]
    return row


def test_every_arm_eval_and_metric_in_config_order_and_counts_add_up() -> None:
    rows = fake.summarize(SCORES, fake.SETUP, fake.METRICS)
    expected = [(a, e, m) for a in fake.ARMS for e in fake.EVALS for m in fake.METRICS[e]]
    assert [(r["arm"], r["eval"], r["metric"]) for r in rows] == expected
    for row in rows:
        assert row["n_attempted"] == row["n_scored"] + row["n_error"]
        assert row["n_unparsed"] + row["n_truncated"] <= 2 * row["n_scored"]
        assert row["n_examples"] == 24
        assert row["ci_low"] is None or row["ci_low"] <= row["mean"] <= row["ci_high"]
    fake.frame("summary", rows)
    assert by_metric([r for r in rows if r["arm"] == "base"], "correct")["n_unparsed"] > 0
    assert next(r for r in rows if r["arm"] == "role_play")["n_error"] == 2


def test_summary_closed_forms() -> None:
    table = quiz([("base", f"{i:02d}-0", "right", float(i < 3)) for i in range(10)])
    row = by_metric(fake.summarize(table, {"base": ["quiz"]}, QUIZ), "right")
    assert (row["mean"], row["interval"]) == (0.3, "wilson")
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(wilson(3, 10, Z))


def test_items_are_pooled_and_clustered_by_example() -> None:
    rows = [
        fake.score("base", "quiz", f"{i}-0", "right", float(item <= i % 2), item=item)
        for i in range(8)
        for item in range(1 + i % 3)
    ]
    found = by_metric(fake.summarize(fake.frame("scores", rows), {"base": ["quiz"]}, QUIZ), "right")
    assert found["mean"] == pytest.approx(sum(r["value"] for r in rows) / len(rows))
    assert (found["n_examples"], found["n_scored"], found["interval"]) == (8, len(rows), "t")


def test_duplicates_are_one_cluster() -> None:
    table = quiz([("base", f"{i:02d}-{copy}", "right", float(i % 2)) for i in range(8) for copy in (0, 1)])
    row = by_metric(fake.summarize(table, {"base": ["quiz"]}, QUIZ), "right")
    assert (row["n_examples"], row["interval"]) == (16, "t")
    assert row["se"] == pytest.approx((0.25 / 7 * SPLIT) ** 0.5)


SPLIT = 6 / 4 * 8 / 10
"""What `contrasts` multiplies the variance by where four of eight clusters have another value than the rest."""


def clustered(scores: pl.DataFrame, clusters: dict[str, str]) -> aggregate.Table:
    """A table of the quiz in which an example has the cluster that `clusters` gives it."""
    rows = [
        {"eval": "quiz", "example_id": example, "cluster": cluster, "strata": f'{{"topic": ["{cluster}"]}}'}
        for example, cluster in clusters.items()
    ]
    return aggregate.Table(scores, pl.DataFrame(rows), ARMS, QUIZ, [])


def test_rows_of_one_cluster_count_once() -> None:
    """Eight templates of two examples each, against sixteen examples that stand alone."""
    values = {f"{i:02d}-0": float(i // 2 % 2) for i in range(16)}
    scores = quiz([("base", example, "right", value) for example, value in values.items()])
    table = clustered(scores, {example: f"template {i // 2}" for i, example in enumerate(values)})
    row = by_metric([r for r in aggregate.summarize(table) if r["arm"] == "base"], "right")
    assert (row["n_examples"], row["n_scored"], row["mean"], row["interval"]) == (16, 16, 0.5, "t")
    assert row["se"] == pytest.approx((0.25 / 7 * SPLIT) ** 0.5), "as of eight examples"
    assert by_metric(fake.summarize(scores, {"base": ["quiz"]}, QUIZ), "right")["interval"] == "wilson"


def test_a_comparison_counts_clusters() -> None:
    rows = [(arm, f"{i:02d}-0", "right", float(arm == "tuned")) for arm in ARMS for i in range(16)]
    table = clustered(quiz(rows), {f"{i:02d}-0": f"{i % 8}" for i in range(16)})
    row = by_metric(aggregate.compare(table, CONTROL), "right")
    assert (row["n_pairs"], row["wins"], row["losses"], row["ties"]) == (8, 8, 0, 0)
    assert row["difference"] == 1.0
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tango(8, 0, 8, Z))


def test_a_claim_about_other_types_has_types_as_its_sample() -> None:
    """Two types of eight examples each: sixteen examples, and no claim about other types."""
    rows = [(arm, f"{i:02d}-0", "right", float(arm == "tuned" and i % 3 > 0)) for arm in ARMS for i in range(16)]
    examples = pl.DataFrame(
        [
            {"eval": "quiz", "example_id": f"{i:02d}-0", "cluster": f"{i}", "strata": f'{{"type": ["t{i % 2}"]}}'}
            for i in range(16)
        ]
    )
    table = aggregate.Table(quiz(rows), examples, ARMS, QUIZ, [])
    common = {"name": "q", "asks": "Is it better?", "arm": "tuned", "control": "base", "eval": "quiz"}
    common |= {"metric": "right", "kind": "gain", "margin": 0.0, "check": None}
    curves = fake.frame("curves", [])
    fixed, new = answering.answer(table, [AskedQuestion(**common, over=over) for over in (None, "type")], curves)
    assert (fixed["verdict"], fixed["n_pairs"], fixed["n_missing"]) == ("better", 16, 0)
    assert (new["verdict"], new["n_pairs"], new["ci_low"]) == ("undecided", 2, None)
    with pytest.raises(ImprintError, match="has no stratum 'genre'; write another `over`"):
        answering.answer(table, [AskedQuestion(**common, over="genre")], curves)


def test_an_example_that_the_dataset_lacks_is_named() -> None:
    scores = quiz([("base", f"{i}-0", "right", 1.0) for i in range(3)])
    said = "eval 'quiz', arm 'base': the scores hold the example 1-0, which the eval's dataset lacks; delete"
    with pytest.raises(ImprintError, match=said):
        clustered(scores, {"0-0": "0", "2-0": "2"})


def test_the_job_takes_clusters_from_the_datasets(tmp_path: Path) -> None:
    """Two evals of one dataset, and one of another: the job joins them by the dataset's name, in any order of files."""
    rows = [{"messages": [{"role": "user", "content": f"{i}?"}], "cluster": f"topic {i % 6}"} for i in range(12)]
    dataset_rows.write(tmp_path / "1.parquet", "clustered", rows, "0")
    dataset_rows.write(tmp_path / "2.parquet", "plain", [{"messages": row["messages"]} for row in rows], "0")
    datasets = {"a": "clustered", "b": "plain", "c": "clustered"}
    ids = [row["example_id"] for row in dataset_rows.read(tmp_path / "1.parquet")]
    scored = [
        fake.score(arm, name, e, "right", float(arm == "tuned")) for arm in ARMS for name in datasets for e in ids
    ]
    parquet.write(tmp_path / "scores.parquet", "scores", scored)
    spec = Spec(
        arms={arm: list(datasets) for arm in ARMS},
        fitted=[],
        single=[],
        runs=[],
        metrics={name: {"right": (True, 1)} for name in datasets},
        controls=CONTROL,
        datasets=datasets,
        questions=[],
        plan=Plan(version="v", seeds=1, looks=str(tmp_path / "looks.json")),
    )
    out = {name: tmp_path / f"{name}.parquet" for name in ("answers", "comparisons", "pairs", "summary")}
    files = {"scores": [tmp_path / "scores.parquet"], "manifests": []}
    run(spec=spec, **files, datasets=[tmp_path / "2.parquet", tmp_path / "1.parquet"], out=out)
    compared = parquet.read(out["comparisons"], "comparisons").to_pylist()
    assert {row["eval"]: row["n_pairs"] for row in compared} == {"a": 6, "b": 12, "c": 6}
    assert len(parquet.read(out["summary"], "summary")) == 6
    bare = spec.model_copy(update={"datasets": {}, "metrics": {}})
    run(spec=bare, scores=[], datasets=[], manifests=[], out=out)
    assert len(parquet.read(out["summary"], "summary")) == 0, "an experiment without evals"
    assert not (tmp_path / "looks.json").exists(), "without a question there is nothing to look at"


def test_every_two_arms_are_a_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = fake.scores(6)
    table = aggregate.Table(scored, fake.examples(scored), fake.SETUP, fake.METRICS, fake.FITTED)
    rows = aggregate.pairs(table)
    assert {frozenset((row["arm"], row["control"])) for row in rows} == set(map(frozenset, combinations(fake.ARMS, 2)))
    assert len(rows) == 10 * len(fake.EVALS) and all(row["primary"] for row in rows)
    compared = {(r["arm"], r["control"], r["eval"], r["metric"]): r for r in aggregate.compare(table, fake.CONTROLS)}
    shared = [row for row in rows if (row["arm"], row["control"], row["eval"], row["metric"]) in compared]
    assert shared and all(compared[r["arm"], r["control"], r["eval"], r["metric"]] == r for r in shared)
    monkeypatch.setattr(aggregate, "MOST_ARMS", 4)
    assert aggregate.pairs(table) == []


def test_an_arm_that_failed_altogether_keeps_its_rows() -> None:
    table = quiz(
        [(arm, f"{i}-0", m, None if arm == "tuned" else 1.0) for arm in ARMS for i in range(6) for m in QUIZ["quiz"]]
    )
    row = by_metric([r for r in fake.summarize(table, ARMS, QUIZ) if r["arm"] == "tuned"], "right")
    assert (row["n_attempted"], row["n_scored"], row["n_error"], row["mean"]) == (6, 0, 6, None)
    assert row["interval"] == "none: no data"
    compared = fake.compare(table, ARMS, CONTROL, QUIZ)
    assert [(r["n_pairs"], r["n_missing"], r["difference"]) for r in compared] == [(0, 6, None)] * 2
    assert {r["interval"] for r in compared} == {"none: no data"}
    answer = ask(table)
    assert (answer["verdict"], answer["n_pairs"], answer["n_missing"]) == ("no data", 0, 6)


def test_no_scores_at_all() -> None:
    empty = SCORES.clear()
    assert all(r["n_attempted"] == 0 and r["mean"] is None for r in fake.summarize(empty, ARMS, QUIZ))
    assert {r["interval"] for r in fake.compare(empty, ARMS, CONTROL, QUIZ)} == {"none: no data"}
    assert ask(empty)["verdict"] == "no data"


def test_comparison_closed_form_and_descriptive_metrics_are_left_out() -> None:
    values = [(0, 1)] * 9 + [(1, 0)] * 2 + [(1, 1)] * 53
    rows = [
        (arm, f"{i:02d}-0", metric, float(pair[arm == "tuned"]))
        for i, pair in enumerate(values)
        for arm in ARMS
        for metric in QUIZ["quiz"]
    ]
    right, cost = fake.compare(quiz(rows), ARMS, CONTROL, QUIZ)
    assert (right["metric"], cost["metric"]) == ("right", "cost")
    assert right["difference"] == pytest.approx(7 / 64)
    assert (right["ci_low"], right["ci_high"]) == pytest.approx(tango(9, 2, 64, Z))
    assert right["interval"] == "tango, one seed"
    assert (right["wins"], right["losses"], right["ties"], right["n_pairs"]) == (9, 2, 53, 64)
    assert (cost["wins"], cost["losses"]) == (2, 9)
    assert (right["primary"], cost["primary"]) == (True, False)


def test_lower_is_better_flips_the_verdict() -> None:
    rows = [
        fake.score(arm, "quiz", f"{i:02d}-0", "cost", float(arm == "tuned") + i % 3 / 10, seed=seed)
        for arm, seeds in (("base", (0,)), ("tuned", (0, 1, 2)))
        for i in range(20)
        for seed in seeds
    ]
    table = fake.frame(
        "scores", [{**row, "value": row["value"] + 0.01 * row["seed"] * (i % 2)} for i, row in enumerate(rows)]
    )
    row = by_metric(fake.compare(table, ARMS, CONTROL, QUIZ), "cost")
    assert (row["wins"], row["losses"]) == (0, 20)
    answer = ask(table, metric="cost")
    assert (answer["verdict"], answer["n_seeds"], answer["scope"]) == ("worse", 3, "method")


def test_a_failed_check_leaves_the_question_untested() -> None:
    """The control that follows takes as much as the treatment, so nothing was delivered."""
    rows = [
        (arm, f"{i:02d}-0", m, float(arm == "tuned" and m == "right"))
        for arm in ARMS
        for i in range(20)
        for m in ("right", "cost")
    ]
    table = quiz(rows)
    assert ask(table)["verdict"] == "higher"
    check = {"arm": "tuned", "control": "base", "eval": "quiz", "metric": "cost"}
    answer = ask(table, check=check)
    assert (answer["verdict"], answer["difference"], answer["n_pairs"]) == ("not tested", None, 20)
    assert ask(table, check={**check, "metric": "right"})["verdict"] == "higher"


REWARDS = [0.0, 0.1, 0.0, 0.1, 0.3, 0.4, 0.3, 0.5, 0.6]


@pytest.mark.parametrize(
    ("rewards", "check", "delivered"),
    [
        (REWARDS, {}, True),
        (REWARDS[::-1], {}, False),
        ([0.2] * 9, {}, False),
        ([0.2], {}, False),
        ([], {}, False),
        ([], {"below": 1.0}, False),
        (REWARDS, {"above": 0.2}, True),
        (REWARDS, {"above": 0.3}, False),
        (REWARDS, {"below": 0.3}, True),
        (REWARDS, {"above": 0.1, "below": 0.2}, False),
    ],
)
def test_a_check_of_a_training_curve(rewards: list[float], check: dict[str, float], delivered: bool) -> None:
    """The curves of two seeds; those of another quantity and arm do not count."""
    points = [
        {"arm": arm, "seed": seed, "step": step + 1, "quantity": quantity, "value": value + 0.01 * seed}
        for arm, quantity, values in (
            ("tuned", "reward", rewards),
            ("tuned", "loss", [0.0] * 9),
            ("base", "reward", REWARDS),
        )
        for seed in (0, 1)
        for step, value in enumerate(values)
    ]
    checked = {"arm": "tuned", "curve": "reward", "above": None, "below": None, **check}
    rows = [(arm, f"{i:02d}-0", "right", float(arm == "tuned")) for arm in ARMS for i in range(20)]
    verdict = ask(quiz(rows), fake.frame("curves", points), check=checked)["verdict"]
    assert verdict == ("higher" if delivered else "not tested")


@pytest.mark.parametrize(("first", "delivered"), [([0.8, 0.8, 0.9], True), ([0.8] * 3, True), ([1.0] * 3, False)])
def test_rewards_that_have_all_reached_1_are_no_problem(first: list[float], delivered: bool) -> None:
    points = [{"step": step, "value": value} for step, value in enumerate([*first, 0.9, 0.9, 0.9, *[1.0] * 3])]
    check = CurveCheck(arm="tuned", curve="reward", above=None, below=None)
    with warnings.catch_warnings(action="error"):
        assert answering._curve_passes(pl.DataFrame(points * 2), check) == delivered


def test_what_was_left_out_bounds_the_difference() -> None:
    rows = [(arm, f"{i:02d}-0", "right", float(arm == "tuned")) for arm in ARMS for i in range(16)]
    lost = [("tuned", f"{i:02d}-0", "right", None) for i in range(16, 20)]
    lost += [("base", f"{i:02d}-0", "right", 1.0) for i in range(16, 20)]
    answer = ask(quiz([*rows, *lost]))
    assert (answer["difference"], answer["n_missing"]) == (1.0, 4)
    assert (answer["worst_low"], answer["worst_high"]) == pytest.approx((12 / 20, 1.0))
    assert ask(quiz(rows))["worst_low"] is None, "nothing was left out"
    nats = [(arm, example, "cost", None if value is None else 3 + value) for arm, example, _, value in [*rows, *lost]]
    assert ask(quiz(nats), metric="cost")["worst_low"] is None, "a likelihood has no worst value"


def test_looks_are_kept_and_paid_for(tmp_path: Path) -> None:
    """Eight of sixteen clusters, then all, then all again, then more than was planned."""

    def look(n: int, version: str = "v", asked: int = 16, fitted: tuple[str, ...] = ()) -> dict[str, Any]:
        dataset_rows.write(
            tmp_path / "quiz.parquet",
            "quiz",
            [{"messages": [{"role": "user", "content": f"{i}?"}]} for i in range(asked)],
            "0",
        )
        ids = [row["example_id"] for row in dataset_rows.read(tmp_path / "quiz.parquet")]
        scores = [
            fake.score(arm, "quiz", e, "right", float(arm == "tuned" or i % 3 == 0))
            for arm in ARMS
            for i, e in enumerate(ids[:n])
        ]
        parquet.write(tmp_path / "scores.parquet", "scores", scores)
        common = {"name": "q", "asks": "Is it better?", "arm": "tuned", "control": "base", "eval": "quiz"}
        common |= {"metric": "right", "kind": "gain", "margin": 0.0, "check": None, "over": None}
        spec = Spec(
            arms=ARMS,
            fitted=list(fitted),
            single=[],
            runs=[],
            metrics={"quiz": {"right": (True, 1)}},
            controls=CONTROL,
            datasets={"quiz": "quiz"},
            questions=[AskedQuestion(**common)],
            plan=Plan(version=version, seeds=3, looks=str(tmp_path / "looks.json")),
        )
        out = {name: tmp_path / f"{name}.parquet" for name in ("answers", "comparisons", "pairs", "summary")}
        files = {"scores": [tmp_path / "scores.parquet"], "datasets": [tmp_path / "quiz.parquet"]}
        run(spec=spec, **files, manifests=[], out=out)
        (row,) = parquet.read(out["answers"], "answers").to_pylist()
        return dict(row)

    half, whole, again = look(8), look(16), look(16)
    assert (half["share"], half["looks_before"], half["may_decide"]) == (0.5, 0, True)
    assert (whole["share"], whole["looks_before"], whole["verdict"]) == (1.0, 1, "better")
    assert again == whole, "the same amounts are the same look"
    assert whole["ci_low"] < look(16, "w")["ci_low"], "the look before costs a little"
    assert look(16, "w")["other_versions"] == 1
    more = look(24, asked=24)
    assert (more["may_decide"], more["verdict"], more["ci_low"]) == (False, "undecided", None)
    early = look(2, "x")
    assert (early["verdict"], early["ci_low"]) == ("undecided", None), "an eighth of the data decides nothing"
    tiny = look(5, "y", asked=200)
    assert (tiny["share"], tiny["ci_low"], tiny["may_decide"]) == (0.025, None, True), "the error is still to be spent"
    weights = look(16, "z", fitted=("tuned",))
    assert (weights["share"], weights["verdict"]) == (1.0, "higher"), "there will be no more of these weights"


def test_a_broken_history_is_named(tmp_path: Path) -> None:
    (tmp_path / "looks.json").write_text('{"v": [{"spent": "all"}]}', encoding="utf-8")
    with pytest.raises(ImprintError, match=r"looks\.json is no history of looks \(2 problems\); move the file away"):
        history.read(tmp_path / "looks.json")


def test_a_null_leaves_its_pair_out() -> None:
    rows = [(arm, f"{i}-0", "right", None if (arm, i) == ("base", 3) else 1.0) for arm in ARMS for i in range(8)]
    row = by_metric(fake.compare(quiz(rows), ARMS, CONTROL, QUIZ), "right")
    assert (row["n_pairs"], row["n_missing"], row["difference"]) == (7, 1, 0.0)


def test_an_error_without_items_takes_all_items_of_its_example_out() -> None:
    rows = []
    for i in range(8):
        for item in range(2):
            rows.append(fake.score("base", "quiz", f"{i}-0", "right", 1.0, item=item))
            rows.append(fake.score("tuned", "quiz", f"{i}-0", "right", 0.0, item=item))
            if i:
                rows.append(fake.score("tuned", "quiz", f"{i}-0", "right", 0.0, item=item, seed=1))
    rows.append(fake.score("tuned", "quiz", "0-0", "right", None, seed=1))
    for row in rows:
        if (row["example_id"], row["item"], row["seed"]) == ("1-0", 1, 1):
            row.update(value=None, status="error")
    row = by_metric(fake.compare(fake.frame("scores", rows), ARMS, CONTROL, QUIZ), "right")
    assert (row["n_pairs"], row["n_missing"], row["losses"]) == (7, 1, 7)


def test_an_unfitted_control_is_paired_with_every_seed() -> None:
    rows = [fake.score("base", "quiz", f"{i}-0", "right", float(i % 2)) for i in range(8)]
    rows += [
        fake.score("tuned", "quiz", f"{i}-0", "right", float((i + seed) % 3 > 0), seed=seed)
        for i in range(8)
        for seed in (0, 1, 2)
    ]
    table = fake.frame("scores", rows)
    row = by_metric(fake.compare(table, ARMS, CONTROL, QUIZ), "right")
    assert (row["n_pairs"], row["n_seeds"], row["interval"]) == (8, 3, "t")
    assert row["difference"] == pytest.approx(2 / 3 - 1 / 2)
    means = {r["arm"]: r["mean"] for r in fake.summarize(table, ARMS, QUIZ) if r["metric"] == "right"}
    assert row["difference"] == pytest.approx(means["tuned"] - means["base"])


def test_counts_of_comparisons_add_up() -> None:
    rows = fake.compare(SCORES, fake.SETUP, fake.CONTROLS, fake.METRICS)
    fake.frame("comparisons", rows)
    assert all(r["n_pairs"] == r["wins"] + r["losses"] + r["ties"] for r in rows)
    assert all(r["n_pairs"] + r["n_missing"] == 24 for r in rows)


def test_adding_an_arm_leaves_the_other_numbers_alone() -> None:
    fewer = dict.fromkeys(fake.ARMS[:3], fake.EVALS)
    rows = fake.summarize(SCORES, fake.SETUP, fake.METRICS)
    small = SCORES.filter(pl.col("arm").is_in(list(fewer)))
    assert fake.summarize(small, fewer, fake.METRICS) == rows[: len(rows) * 3 // 5]


def test_evals_that_only_one_arm_runs_are_not_compared() -> None:
    arms = {"base": ["quiz"], "tuned": []}
    table = quiz([("base", "0-0", "right", 1.0)])
    assert fake.compare(table, arms, CONTROL, QUIZ) == []
    assert {r["arm"] for r in fake.summarize(table, arms, QUIZ)} == {"base"}


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 2**31))
def test_the_order_of_rows_changes_nothing(seed: int) -> None:
    small = SCORES.filter(pl.col("eval") == "ifeval_format")
    mixed = small.sample(fraction=1, shuffle=True, seed=seed)
    assert fake.summarize(mixed, fake.SETUP, fake.METRICS) == fake.summarize(small, fake.SETUP, fake.METRICS)
    one, other = (fake.compare(t, fake.SETUP, fake.CONTROLS, fake.METRICS) for t in (mixed, small))
    assert one == other


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9).map(lambda x: round(x, 2)), st.floats(-9, 9)), min_size=1, max_size=16))
def test_swapping_arm_and_control_flips_the_difference(values: list[tuple[float, float]]) -> None:
    rows = [(arm, f"{i:02d}-0", "cost", v[k]) for i, v in enumerate(values) for k, arm in enumerate(ARMS)]
    there = by_metric(fake.compare(quiz(rows), ARMS, CONTROL, QUIZ), "cost")
    back = by_metric(fake.compare(quiz(rows), ARMS, {"base": ["tuned"]}, QUIZ), "cost")
    assert there["difference"] == pytest.approx(-back["difference"])
    assert (there["wins"], there["se"]) == (back["losses"], back["se"])
    if there["ci_low"] is not None:
        assert there["ci_low"] == pytest.approx(-back["ci_high"], abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "style"}, "which its score module does not name"),
        ({"status": "error"}, "write a finite value"),
        ({"status": "fine"}, "write a finite value"),
        ({"value": float("nan")}, "write a finite value"),
        ({"value": None, "status": "scored"}, "write a finite value"),
    ],
)
def test_inconsistent_scores_are_errors(change: dict[str, Any], message: str) -> None:
    rows = [{**fake.score("base", "quiz", "0-0", "right", 1.0), **change}]
    with pytest.raises(ImprintError, match=message):
        fake.summarize(fake.frame("scores", rows), ARMS, QUIZ)


def test_repeated_rows_are_an_error() -> None:
    table = quiz([("base", "0-0", "right", 1.0)] * 2)
    with pytest.raises(ImprintError, match="two rows for"):
        fake.summarize(table, ARMS, QUIZ)
    with pytest.raises(ImprintError, match="the scores have the columns"):
        fake.summarize(table.drop("seed"), ARMS, QUIZ)


def test_duckdb_joins_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = fake.tables(12)
    for name, table in made.items():
        parquet.write(Path(f"{name}.parquet"), name, table.to_arrow())
    files: dict[str, Path | list[Path]] = {name: Path(f"{name}.parquet") for name in made}
    files |= {"scores": [Path("scores.parquet")], "datasets": []}
    path = tmp_path / "results" / "it's.duckdb"
    database.run(NOTHING, path, files)
    monkeypatch.chdir("/")
    with duckdb.connect(str(path), read_only=True) as connection:
        means = connection.execute("select arm_mean - control_mean - difference, n_missing from verdicts").fetchall()
        assert len(means) == len(made["answers"])
        assert all(abs(gap) < 1e-9 for gap, missing in means if missing == 0)
        count = connection.execute("select count(*) from scores where arm = 'base'").fetchone()
        assert count == (len(made["scores"].filter(pl.col("arm") == "base")),)
        assert connection.execute("select count(*) from datasets").fetchone() == (0,)
        kinds = dict(connection.execute("select table_name, table_type from information_schema.tables").fetchall())
        assert (kinds["scores"], kinds["summary"]) == ("VIEW", "BASE TABLE")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_duckdb_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="needs the table 'summary'"):
        database.run(NOTHING, tmp_path / "x.duckdb", {})
    broken = tmp_path / "broken.parquet"
    broken.write_text("no")
    with pytest.raises(ImprintError, match="not a readable Parquet file"):
        database.run(NOTHING, tmp_path / "x.duckdb", {"summary": broken, "answers": broken})
    with pytest.raises(ImprintError, match="no table is called 'extra'"):
        database.run(NOTHING, tmp_path / "x.duckdb", {"extra": broken, "summary": broken, "answers": broken})
    assert [p.name for p in tmp_path.iterdir()] == ["broken.parquet"]


def test_statistics_and_report_need_no_torch() -> None:
    code = "import sys, imprint.statistics.aggregate, imprint.tables.database, imprint.report.page\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0
