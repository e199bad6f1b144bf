"""GSM8K's rule for numbers, and answers to reasoning_gym questions by the library's own verifiers."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.datasets import reasoning_gym as questions
from imprint.runtime import needs
from imprint.scores import Verdict, numeric, reasoning_gym

NUMBERS = {
    "She makes 9 * $2 = $18 every day.": "18",
    "#### 18": "18",
    "First 3 apples.\n#### 1,234\nThat was question 7.": "1234",
    "#### none\nso 12": "12",
    "The answer is 18.": "18",
    "The answer is 18.00": "18",
    "It is -5": "-5",
    "It is \u22125.": "-5",
    "It is -$5": "-5",
    "10-5": "5",
    "(3)-4": "4",
    "$1,234,567.50 in all": "1234567.5",
    "1,2": "2",
    "1,2345": "2345",
    "a half, .5": "0.5",
    "version 3.10": "3.1",
    "50%": "50",
    "**42**": "42",
    "\\boxed{7}": "7",
    "no number": None,
    "####": None,
    "": None,
    "-": None,
}


@pytest.mark.parametrize("text", list(NUMBERS))
def test_number(text: str) -> None:
    wanted = NUMBERS[text]
    assert numeric.number(text) == (None if wanted is None else Decimal(wanted))


def test_score() -> None:
    row = {"reference": {"answer": "1,800"}}
    assert numeric.score(row, "It is 1800.0.", numeric.Settings()) == [Verdict("accuracy", 1.0)]
    assert numeric.score(row, "It is 1801", numeric.Settings()) == [Verdict("accuracy", 0.0)]
    assert numeric.score(row, "I do not know", numeric.Settings()) == [Verdict("accuracy", 0.0, unparsed=True)]
    for gold in ("many", None, [3], True):
        assert str(needs.problem("numeric", {"answer": gold})).startswith("reference.answer")
    for gold in ("18", 18, 0.5, "#### 18"):
        assert needs.problem("numeric", {"answer": gold}) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=3))
def test_round_trip(value: Decimal) -> None:
    for text in (f"{value:f}", f"{value:,f}", f"The result is {value:,f}.", f"so 7\n#### {value:f}\n"):
        assert numeric.number(text) == value


@given(st.text() | st.text(alphabet="0123456789,.-$# "))
@settings(max_examples=300, deadline=None)
def test_number_never_raises(text: str) -> None:
    found = numeric.number(text)
    assert found is None or found.is_finite()


@pytest.mark.parametrize("unit", ["1", "1,", "111,", "-", "$", "#", "1.", ",111", ". "])
def test_number_is_bounded_on_a_megabyte(unit: str) -> None:
    start = time.perf_counter()
    numeric.number((unit * 1_000_000)[:1_000_000])
    assert time.perf_counter() - start < 2


def gym(task: str, n: int = 3, **more: Any) -> list[dict[str, Any]]:
    pytest.importorskip("reasoning_gym")
    rows = list(questions.rows(questions.Settings(task=task, n=n, **more), {}))
    stored: list[dict[str, Any]] = json.loads(json.dumps(rows))  # what a table gives back
    assert stored == rows
    return stored


def reward(row: dict[str, Any], response: str) -> dict[str, float | None]:
    return {v.metric: v.value for v in reasoning_gym.score(row, response, reasoning_gym.Settings())}


# Among them those whose verifier evaluates the answer, tells tuples from lists, or reads its settings.
TASKS = [
    *("chain_sum", "countdown", "polynomial_multiplication", "simple_integration", "spiral_matrix"),
    *("binary_matrix", "n_queens", "string_insertion", "intermediate_integration", "rearc", "word_sorting"),
]


@pytest.mark.parametrize("task", TASKS)
def test_library_answers_are_worth_one(task: str) -> None:
    for row in gym(task):
        gold = row["reference"]["entry"]["answer"]
        assert reward(row, gold) == {"reward": 1.0, "solved": 1.0}
        assert reward(row, f"Let me think.\n<answer>1</answer> no, <answer> {gold} </answer>")["reward"] == 1.0
        assert reward(row, "I have no idea at all")["solved"] == 0.0


def test_settings_reach_the_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "LEFT_OUT", {})  # this task's verifier shows it best
    small, usual = gym("puzzle24", n=1, config={"max_value": 6})[0], gym("puzzle24", n=1)[0]
    assert reward(small, small["reference"]["entry"]["answer"])["solved"] == 1.0
    assert reward(usual, "(9 - 3) * (8 - 4)")["solved"] == 1.0
    assert reward(small, "(9 - 3) * (8 - 4)")["solved"] == 0.0


def test_same_seed_same_questions() -> None:
    assert gym("chain_sum", seed=5) == gym("chain_sum", seed=5) != gym("chain_sum", seed=6)
    assert gym("chain_sum", n=2, seed=5) == gym("chain_sum", n=3, seed=5)[:2]


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os').system('touch hacked')",
        "[print(1)]",
        "9**9**9**9",
        "((9**99)**99)**99**99",
        "[0]*10**12",
        "(" * 400,
        "1" * 500,
        "a" * 499 + "!",
        "exp(exp(x)).__class__",
        "lambda: 0",
        "\x00",
    ],
)
def test_answers_are_never_run(answer: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = time.perf_counter()
    for task in ("countdown", "polynomial_multiplication", "simple_integration", "spiral_matrix"):
        assert (reward(gym(task, n=1)[0], answer)["solved"] or 0) == 0
    assert not list(tmp_path.iterdir())
    assert time.perf_counter() - start < 10


def test_empty_and_huge_answers() -> None:
    row = gym("chain_sum", n=1)[0]
    assert all(v.unparsed and v.value == 0 for v in reasoning_gym.score(row, " \n", reasoning_gym.Settings()))
    assert all(v.unparsed for v in reasoning_gym.score(row, "<answer></answer>", reasoning_gym.Settings()))
    start = time.perf_counter()
    assert reward(row, "1" * 1_000_000)["reward"] == 0.0
    assert time.perf_counter() - start < 1
    assert needs.problem("reasoning_gym", {}) == "reference.task: missing"


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_verifier_never_raises(text: str) -> None:
    row = {"reference": {"task": "chain_sum", "entry": {"question": "1 + 1 =", "answer": "2", "metadata": {}}}}
    pytest.importorskip("reasoning_gym")
    assert 0 <= (reward(row, text)["reward"] or 0) <= 1
