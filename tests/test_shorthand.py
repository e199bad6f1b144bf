"""Arms that are like others, and arms for several values, are written out before a config is checked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from conftest import one_fit
from imprint.config import loading, shorthand
from imprint.dag.experiment import Experiment
from imprint.dag.report_facts import facts_of
from imprint.runtime.errors import ImprintError

FIT = {"method": "sft", "data": "dialogues", "learning_rate": 1e-3, "context": {"prior_prompt": {"style": "plan"}}}
ARM = {"parent": "base", "fit": FIT, "apply": {"context": "role_play"}, "control": ["base"]}


def arms(**written: Any) -> dict[str, Any]:
    raw = {"arms": {"base": {"model": "m1"}, "tuned": ARM, **written}}
    before = copy.deepcopy(raw)
    out: dict[str, Any] = shorthand.written_out(raw)["arms"]
    assert raw == before, "what was read stays as it is, since YAML's anchors share it"
    return out


def test_an_arm_that_is_like_another_has_its_keys() -> None:
    slow = arms(slow={"like": "tuned", "fit": {"learning_rate": 1e-5}, "control": ["tuned"]})["slow"]
    assert slow == {**ARM, "like": "tuned", "fit": {**FIT, "learning_rate": 1e-5}, "control": ["tuned"]}


def test_null_takes_a_key_out() -> None:
    slow = arms(slow={"like": "tuned", "fit": {"learning_rate": None}, "apply": None, "transductive": None})["slow"]
    assert slow == {
        "like": "tuned", "parent": "base", "fit": {k: v for k, v in FIT.items() if k != "learning_rate"},
        "control": ["base"],
    }  # fmt: skip


def test_likeness_passes_on_in_any_order() -> None:
    written = arms(third={"like": "second", "fit": {"epochs": 2}}, second={"like": "tuned", "fit": {"epochs": 1}})
    assert list(written) == ["base", "tuned", "third", "second"]
    assert written["third"] == {**written["second"], "like": "second", "fit": {**FIT, "epochs": 2}}
    many = {f"a{n}": {"like": f"a{n + 1}"} for n in range(3000)} | {"a3000": ARM}
    assert arms(**many)["a0"] == {**ARM, "like": "a1"}


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({"prior_prompt": {"place": "after"}}, {"prior_prompt": {"style": "plan", "place": "after"}}),
        ({"self_role": {"tokens": 9}}, {"self_role": {"tokens": 9}}),
        (["plain"], ["plain"]),
    ],
)
def test_another_plug_in_takes_the_place_of_one(context: Any, expected: Any) -> None:
    assert arms(slow={"like": "tuned", "fit": {"context": context}})["slow"]["fit"]["context"] == expected


def test_for_makes_an_arm_of_each_value() -> None:
    written = arms(slow={"like": "tuned", "for": {"fit.learning_rate": {"low": 1e-5, "high": 3e-5}}})
    assert list(written) == ["base", "tuned", "slow_low", "slow_high"]
    assert written["slow_low"] == {**ARM, "like": "tuned", "fit": {**FIT, "learning_rate": 1e-5}}
    assert written["slow_high"]["fit"]["learning_rate"] == 3e-5


def test_values_that_can_end_a_name_name_themselves() -> None:
    written = arms(more={**ARM, "for": {"fit.epochs": [1, 2], "apply.context": ["plain", "role_play"]}})
    assert list(written)[2:] == ["more_1_plain", "more_1_role_play", "more_2_plain", "more_2_role_play"]
    second = written["more_2_plain"]
    assert second == {**ARM, "fit": {**FIT, "epochs": 2}, "apply": {"context": "plain"}}


def test_for_can_take_a_key_out_and_can_choose_the_arm() -> None:
    written = arms(
        two={"like": "tuned", "for": {"fit.learning_rate": {"usual": None, "low": 1e-5}}},
        again={"for": {"like": ["tuned", "two_low"]}, "fit": {"epochs": 3}},
    )
    assert "learning_rate" not in written["two_usual"]["fit"]
    assert written["again_two_low"]["fit"] == {**FIT, "learning_rate": 1e-5, "epochs": 3}


def test_the_name_of_a_family_stands_for_its_arms() -> None:
    raw = {
        "arms": {
            "slow": {**ARM, "for": {"fit.epochs": [1, 2]}},
            "last": {"parent": "base", "control": ["base", "slow"]},
        },
        "evals": {"short": {"dataset": "general", "arms": ["slow", "last"]}},
    }
    written = shorthand.written_out(raw)
    assert written["arms"]["last"]["control"] == ["base", "slow_1", "slow_2"]
    assert written["evals"]["short"]["arms"] == ["slow_1", "slow_2", "last"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"slow": {"like": "tunde"}}, "arms.slow.like: no arm named 'tunde'; write one of: base, tuned, slow"),
    ({"slow": {"like": ["tuned"]}}, "arms.slow.like: no arm named"),
    ({"one": {"like": "one"}}, "arms.one.like: the arm is like itself: one -> one"),
    ({"one": {"like": "two"}, "two": {"like": "one"}}, "like itself: one -> two -> one; write one of them in full"),
    ({"a": {**ARM, "for": {"fit.epochs": [1]}}, "b": {"like": "a"}}, "'a' stands for several arms; write one of: a_1"),
    ({"a": {**ARM, "for": ["low", "high"]}}, "arms.a.for: found ['low', 'high']; write {fit.learning_rate: {low: 1e-5"),
    ({"a": {**ARM, "for": {}}}, "arms.a.for: found {}"),
    ({"a": {**ARM, "for": {"learning_rate": [1]}}}, "arms.a.for.learning_rate: is no key of an arm; write its whole"),
    ({"a": {**ARM, "for": {"fit..epochs": [1, 2]}}}, "is no key of an arm"),
    ({"a": {**ARM, "for": {"fit.epochs": 3}}}, "arms.a.for.fit.epochs: found 3; write a list of values"),
    ({"a": {**ARM, "for": {"fit.epochs": []}}}, "arms.a.for.fit.epochs: found []"),
    (
        {"a": {**ARM, "for": {"fit.learning_rate": [1e-5, 3e-5]}}},
        "arms.a.for.fit.learning_rate: 1e-05 cannot end the name of an arm, which has lower-case letters, digits and _"
        "; name each value, such as {low: 1e-05}",
    ),
    ({"a": {**ARM, "for": {"fit.epochs": {"Low": 1}}}}, "'Low' cannot end the name of an arm"),
    ({"a": {**ARM, "for": {"fit.epochs": {True: 1}}}}, "True cannot end the name of an arm"),
    ({"a": {**ARM, "for": {"fit.epochs": [1, 1]}}}, "write each value once"),
    ({"a": {**ARM, "for": {"fit.epochs": [1]}}, "a_1": ARM}, "arms.a: makes an arm 'a_1', and there is one already"),
    ({"a_1": ARM, "a": {**ARM, "for": {"fit.epochs": [1]}}}, "arms.a: makes an arm 'a_1', and there is one already"),
    (
        {"a": {**ARM, "for": {"fit.epochs": ["1_2"]}}, "a_1": {**ARM, "for": {"fit.epochs": [2]}}},
        "arms.a_1: makes an arm 'a_1_2', and there is one already",
    ),
    (
        {"a": {**ARM, "for": {f"fit.k{n}": list(range(99)) for n in range(9)}}},
        "arms.a.for: makes 913,517,247,483,640,899 arms, more than 1,000; write fewer values",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("written", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_cannot_be_written_out_is_told(written: dict[str, Any], said: str) -> None:
    with pytest.raises(ImprintError) as error:
        arms(**written)
    assert said in str(error.value)


@pytest.mark.parametrize("odd", [None, 3, "text", [], [1], {"x": None}, {"x": []}, {1: {"control": 3}}, {"x": "y"}])
def test_what_is_no_arm_and_no_eval_is_left_to_the_checks(odd: Any) -> None:
    raw = {"arms": odd, "evals": odd}
    assert shorthand.written_out(raw) == raw
    with pytest.raises(ImprintError, match=r"^(arms|evals)|\narms"):
        loading.parse(one_fit() | raw)


@pytest.mark.parametrize("arm", [{"control": [[]]}, {"control": [{}, 3]}, {"like": {}}, {"for": {3: {4: []}}}])
def test_values_of_any_type_end_in_a_message(arm: dict[str, Any]) -> None:
    with pytest.raises(ImprintError, match=r"^arms\.x"):
        loading.parse(loading.merge(one_fit(), {"arms": {"x": arm}}))


def test_anchors_and_later_files_work_as_before() -> None:
    text = """
    base: {model: m1}
    one: &one {parent: base, fit: &fit {method: sft, data: dialogues}}
    two: {<<: *one, control: [base]}
    three: {like: two, fit: {<<: *fit, epochs: 2}}
    """
    raw = one_fit() | {"arms": yaml.safe_load(text)}
    config = loading.parse(loading.merge(raw, {"arms": {"three": {"fit": {"epochs": 3}}}}))
    assert config.arms["three"].fit and config.arms["three"].fit.settings.model_dump()["epochs"] == 3
    assert config.arms["three"].control == ["base"] and config.arms["one"].control == []


def test_the_report_shows_what_differs() -> None:
    raw = loading.merge(one_fit(), {"arms": {
        "tuned": {"fit": {"learning_rate": 1e-3, "epochs": 2}, "control": ["base"]},
        "slow": {"like": "tuned", "for": {"fit.learning_rate": {"low": 1e-5}}, "apply": {"context": "role_play"}},
        "usual": {"like": "tuned", "fit": {"learning_rate": None}},
        "twin": {"like": "tuned", "control": ["tuned"]},
        "child": {"like": "tuned", "parent": "tuned"},
    }})  # fmt: skip
    facts = {arm.name: arm.settings for arm in facts_of(Experiment(loading.parse(raw))).arms}
    assert facts["tuned"] == "fit: method sft, data dialogues, epochs 2.0, learning_rate 0.001"
    assert facts["slow_low"].startswith("like tuned, but fit: learning_rate 1e-05; apply: context ")
    assert facts["usual"] == "like tuned, but without fit.learning_rate"
    assert facts["twin"] == "like tuned"
    assert facts["child"] == "like tuned, but arm: parent tuned"


def test_an_arm_and_the_same_arm_in_short_are_one() -> None:
    """The jobs of an arm do not depend on how the arm was written, so that rewriting a config reruns nothing."""
    in_full = loading.parse(loading.merge(one_fit(), {"arms": {"slow": {**ARM, "fit": {**FIT, "epochs": 2}}}}))
    in_short = loading.parse(loading.merge(one_fit(), {"arms": {
        "tuned": ARM, "slow": {"like": "tuned", "fit": {"epochs": 2}},
    }}))  # fmt: skip
    one, other = (config.arms["slow"].model_dump(exclude={"like"}) for config in (in_full, in_short))
    assert one == other
