"""No verifier of reasoning_gym takes nonsense for a solution."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

import security
from imprint.datasets import reasoning_gym as gym
from imprint.runtime.errors import ImprintError
from imprint.scores import reasoning_gym
from imprint.scoring import bounded, verification

NONSENSE = ("NaN", "-inf", "nan+nanj", "1e999", "banana", "[nan]", "{}", "...", "0/0")
CONSTANTS = ("0", "1", "True", "yes", "6*4*1*1")  # right now and then, but not for questions with other answers
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
        rows = list(gym.rows(gym.Settings(task=task, n=3, seed=3), {}))
        for answer in NONSENSE:
            with contextlib.suppress(bounded.Timeout):  # it is counted, and worth 0
                paid += [(task, answer)] if solved(rows[0], answer) != 0.0 else []
        if len({str(row["reference"]["entry"]["answer"]) for row in rows}) > 1:
            for answer in CONSTANTS:
                with contextlib.suppress(bounded.Timeout):
                    paid += [(task, answer)] if all(solved(row, answer) == 1.0 for row in rows) else []
    assert not paid
    assert len(tasks()) > 100
    security.seen(
        "NaN, infinities, other nonsense, or one answer to all questions of reasoning_gym", "solves none of its tasks"
    )


def test_the_task_that_takes_any_text_is_left_out() -> None:
    for task, reason in gym.LEFT_OUT.items():
        with pytest.raises(ImprintError, match="is left out"):
            list(gym.rows(gym.Settings(task=task, n=1), {}))
        assert reason
    security.seen(
        "tasks of reasoning_gym whose verifier takes any text, or one answer to every question",
        "left out by name, with the reason",
    )
