"""No verifier of reasoning_gym takes nonsense for a solution."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

import security
from imprint import bounded, verification
from imprint.datasets import reasoning_gym as gym
from imprint.errors import ImprintError
from imprint.scores import reasoning_gym

NONSENSE = ("NaN", "-inf", "nan+nanj", "1e999", "banana", "[nan]", "{}", "...", "0/0")
UNMADE = {"composite"}  # a mixture of other tasks, which its config has to name


def tasks() -> list[str]:
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - gym.LEFT_OUT.keys() - UNMADE)


def solved(row: dict[str, Any], answer: str) -> float | None:
    said = verification.verdicts("reasoning_gym", reasoning_gym.Settings(), row, f"<answer>{answer}</answer>")
    return {verdict.metric: verdict.value for verdict in said}["solved"]


def test_nonsense_solves_nothing() -> None:
    paid = []
    for task in tasks():
        for row in gym.rows(gym.Settings(task=task, n=1, seed=3), {}):
            for answer in NONSENSE:
                with contextlib.suppress(bounded.Timeout):  # it is counted, and worth 0
                    paid += [(task, answer)] if solved(row, answer) != 0.0 else []
    assert not paid
    assert len(tasks()) > 100
    security.seen("NaN, infinities and other nonsense as an answer of reasoning_gym", "solves none of its tasks")


def test_the_task_that_takes_any_text_is_left_out() -> None:
    for task, reason in gym.LEFT_OUT.items():
        with pytest.raises(ImprintError, match="is left out"):
            list(gym.rows(gym.Settings(task=task, n=1), {}))
        assert reason
    security.seen("a task of reasoning_gym whose verifier takes any text", "left out by name, with the reason")
