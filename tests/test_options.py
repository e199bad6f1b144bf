"""Scores of option sets and of plain text: by log-likelihood and from a written answer."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.runtime import needs
from imprint.runtime.errors import ImprintError
from imprint.scores import Option, Verdict, choice, likelihood, options

REFERENCE: dict[str, Any] = {
    "options": ["the pen", "the marker pen", "the chalk"],
    "answer": 1,
    "penalty": [80, 50, 500],
    "bad": [False, False, True],
    "names": ["pen", "marker pen", "chalk"],
}
ROW = {"messages": [], "reference": REFERENCE}


def scored(logprobs: list[float], row: dict[str, Any] = ROW, **setting: Any) -> list[Verdict]:
    texts = row["reference"]["options"]
    response = [Option(text, logprob, 3) for text, logprob in zip(texts, logprobs, strict=True)]
    return options.score(row, response, options.Settings(**setting))


def table(verdicts: list[Verdict]) -> dict[Any, float | None]:
    return {(v.metric if v.item is None else (v.metric, v.item, v.label)): v.value for v in verdicts}


def test_likeliest_option_is_chosen() -> None:
    assert table(scored([-3.0, -2.0, -9.0])) == {
        "accuracy": 1.0,
        "chance": pytest.approx(1 / 3),
        "bad_rate": 0.0,
        "regret": 0.0,
        ("picked", 0, "A"): 0.0,
        ("picked", 1, "B"): 1.0,
        ("picked", 2, "C"): 0.0,
    }
    assert table(scored([-3.0, -4.0, -1.0])).items() >= {("accuracy", 0.0), ("bad_rate", 1.0), ("regret", 450.0)}
    assert not any(verdict.unparsed for verdict in scored([-1.0, -2.0, -3.0]))


def test_normalisation() -> None:
    assert table(scored([-5.0, -6.0, -9.0]))["accuracy"] == 0.0
    assert table(scored([-5.0, -6.0, -9.0], normalise="per_character"))["accuracy"] == 1.0  # 7 and 14 characters


def test_metrics_that_do_not_apply_are_left_out() -> None:
    row = {"reference": {"options": ["yes", "no"], "answer": 0, "penalty": None}}
    assert {v.metric for v in scored([-1.0, -2.0], row)} == {"accuracy", "chance", "picked"}
    for module in (options, choice):
        assert set(module.METRICS) == {"accuracy", "chance", "bad_rate", "regret", "picked"}
        assert module.PRIMARY in module.METRICS


def test_no_number_is_null_and_ties_are_the_first() -> None:
    assert table(scored([-1.0, math.nan, -2.0]))["accuracy"] is None
    assert table(scored([-1.0, -1.0, -1.0]))["picked", 0, "A"] == 1.0
    assert table(scored([-math.inf, -5.0, -math.inf]))["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": ["one"]}, "reference.options: found"),
        ({"answer": None}, "reference.answer: found None"),
        ({"answer": 3}, "write the index of an option, 0 to 2"),
        ({"answer": True}, "reference.answer"),
        ({"penalty": [1]}, "reference.penalty: found \\[1\\]; write a list of 3"),
    ],
)
def test_malformed_references(change: dict[str, Any], message: str) -> None:
    for score in ("choice", "options"):
        assert re.search(message, str(needs.problem(score, {**REFERENCE, **change})))
        assert needs.problem(score, REFERENCE) is None
        assert needs.problem(score, None) == "reference.options: missing"
    with pytest.raises(ImprintError, match="options: found 1 scored texts"):
        options.score(ROW, [Option("the pen", -1.0, 2)], options.Settings())


PARSED = {
    # JSON
    '{"answer": "B"}': 1,
    '```json\n{"answer": "b"}\n```': 1,
    'Sure! {"Answer": "(C)."} I hope this helps.': 2,
    '{"answer": "the chalk"}': 2,
    '{"reason": {"answer": 1}, "answer": "A. the pen"}': 0,
    '{"thought": "C"} {"answer": "A"}': 0,
    '{"answer": "A"} {"answer": "B"}': None,
    '{"answer": "E"}': None,
    '{"answer": "nothing fits"} B': None,
    '{"answer": 2} B': None,
    '{"answer": "B"': 1,
    # letters
    "B": 1,
    " (b). ": 1,
    "**C**": 2,
    "A. the pen": 0,
    "I would pick this:\n(B) the marker pen": 1,
    "A. the pen\nB. the marker pen\nThe answer is B.": 1,
    "The correct answer is: **C**": 2,
    "Option B because it writes on cardboard": 1,
    "My choice: a": 0,
    "E": None,
    "The answer is D.": None,
    "A or B": None,
    "(A) or (B)": None,
    "A. the pen\nB. the marker pen": None,
    "object(s) of all kinds": None,
    # boxes
    r"A is wrong, B too, so it is $\boxed{C}$.": 2,
    r"\boxed{A}, no: \boxed{\text{(B)}}": 1,
    r"\boxed{\mathbf{C}}": 2,
    r"The answer is A: \boxed{E}": None,
    r"\boxed{the chalk}": 2,
    r"The answer is B, \boxed{}": 1,
    # names
    "Use the chalk.": 2,
    "The answer is a marker pen": 1,
    "A pen would do.": 0,
    "the Marker  Pen!": 1,
    "the pen, not the chalk": None,
    "the pen or the marker pen": None,
    "carpentry and chalky water": None,
    "": None,
    "I cannot say.": None,
}


@pytest.mark.parametrize("text", list(PARSED))
def test_choice_parser(text: str) -> None:
    assert choice.chosen(text, REFERENCE) == PARSED[text]


def test_same_object_in_two_states_is_no_choice() -> None:
    states = ["the clean, free metal pan, heavy, hot", "the dirty, free metal pan, heavy, hot"]
    reference = {"options": states, "answer": 0, "names": ["pan", "pan"]}
    assert choice.chosen("the pan", reference) is None
    assert choice.chosen("The dirty, free metal pan, heavy, hot", reference) == 1


def test_unparsed_answers() -> None:
    verdicts = choice.score(ROW, "no idea", choice.Settings())
    found = table(verdicts)
    assert found["accuracy"] == 0.0 and found["bad_rate"] == 0.0 and "regret" not in found
    assert all(v.unparsed == (v.metric != "chance") for v in verdicts)
    assert all(value == 0.0 for key, value in found.items() if key[0] == "picked")
    assert table(choice.score(ROW, "C", choice.Settings())).items() >= {("accuracy", 0.0), ("regret", 450.0)}


@given(st.text() | st.text(alphabet='{}"[]:,()ABCDEabc answer\n'))
@settings(max_examples=100, deadline=None)
def test_choice_never_raises(text: str) -> None:
    found = choice.chosen(text, REFERENCE)
    assert found in (None, 0, 1, 2)


@pytest.mark.parametrize(
    "unit", ["{", '{"answer":', "A. ", "(A) ", "answer is ", "the pen ", "[" * 50, "\\", " ", "*(", "é"]
)
def test_choice_is_bounded_on_a_megabyte(unit: str) -> None:
    text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
    start = time.perf_counter()
    choice.score(ROW, text, choice.Settings())
    assert time.perf_counter() - start < 2


def test_likelihood() -> None:
    row = {"messages": [], "reference": {"options": ["one text", "two"]}}
    response = [Option("one text", -100.0, 30), Option("two", -20.0, 10)]
    assert likelihood.score(row, response, likelihood.Settings()) == [Verdict("nll_per_token", 3.0)]
    for broken in ([], [Option("", 0.0, 0)], [Option("x", -math.inf, 2)], [Option("x", math.nan, 2)]):
        assert likelihood.score(row, broken, likelihood.Settings()) == [Verdict("nll_per_token", None)]
