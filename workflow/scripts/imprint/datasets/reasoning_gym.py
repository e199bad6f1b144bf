"""Questions made by the reasoning_gym library's generators, to be scored by its own verifiers (`score: reasoning_gym`).

Example: task "chain_sum" asks 'State the final answer to the following arithmetic problem: 4 + 3 ='.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict

LEFT_OUT = {
    "coin_flip": "its verifier takes 0 for right, whatever the question",
    "game_of_life_halting": "its verifier takes any text for right",
    "puzzle24": "its verifier takes any sum that comes to 24, whatever numbers were given",
}
"""Tasks that are refused, with the reason. `tests/attacks/test_nonsense.py` attacks the verifiers of all tasks."""

SOURCES = {"arc_1d": "task_name", "arc_agi": "task_id", "rearc": "task_id"}
"""Tasks whose questions are variants of a smaller number of puzzles -> the field of an entry that names the puzzle."""

DEMAND = "Give the final answer between <answer> and </answer>."


class Settings(Strict):
    """Which of the library's tasks, and how many questions."""

    task: str = Field(description="a task of the library, such as chain_sum")
    n: int = Field(gt=0, description="number of questions")
    seed: int = Field(0, ge=0, description="the library's seed: question i is made from seed + i")
    config: dict[str, Any] = Field({}, description="settings of the task, as the library names them")


def make(task: str, n: int, seed: int, config: dict[str, Any]) -> Any:
    """The library's dataset. Raises ImprintError for a task that is unknown or left out, and for settings that the
    library refuses."""
    from reasoning_gym.factory import DATASETS, create_dataset

    if task in LEFT_OUT:
        raise ImprintError(f"reasoning_gym: the task '{task}' is left out: {LEFT_OUT[task]}; write another")
    if task not in DATASETS:
        close = difflib.get_close_matches(task, DATASETS, n=3) or sorted(DATASETS)
        raise ImprintError(f"reasoning_gym has no task '{task}'; write one of: {', '.join(close)}")
    try:
        return create_dataset(task, size=n, seed=seed, **config)
    except (TypeError, ValueError, AssertionError) as error:
        raise ImprintError(
            f"reasoning_gym refuses the config {config!r:.200} of '{task}': {error}; change `config`"
        ) from error


def pack(value: Any) -> Any:
    """Plain JSON that `unpack` turns into an equal value, tuples included: some verifiers tell tuples from lists.
    Raises ImprintError for a value that JSON cannot hold."""
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list):
        return [pack(part) for part in value]
    if isinstance(value, tuple):
        return {"~tuple": [pack(part) for part in value]}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("~") for key in value):
            return {key: pack(part) for key, part in value.items()}
        return {"~dict": [[pack(key), pack(part)] for key, part in value.items()]}
    raise ImprintError(f"reasoning_gym: an entry holds {value!r:.80}, which JSON cannot store; choose another task")


def unpack(value: Any) -> Any:
    """The inverse of `pack`."""
    if isinstance(value, list):
        return [unpack(part) for part in value]
    if isinstance(value, dict):
        if set(value) == {"~tuple"}:
            return tuple(unpack(part) for part in value["~tuple"])
        if set(value) == {"~dict"}:
            return {unpack(key): unpack(part) for key, part in value["~dict"]}
        return {key: unpack(part) for key, part in value.items()}
    return value


def cluster(dataset: Any, task: str, number: int, entry: dict[str, Any]) -> str:
    """What a question shares with others: the puzzle or the word problem of which it is a variant, or its text. Two
    questions with one text have different entries, since an entry holds its own number."""
    if task == "gsm_symbolic":
        return f"word problem {dataset.task_indices[number]}"
    return str(entry["metadata"][SOURCES[task]] if task in SOURCES else entry["question"])


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """Questions with reference {"task", "config", "entry"}; the entry is the library's, packed as plain JSON."""
    dataset = make(settings.task, settings.n, settings.seed, settings.config)
    for number in range(settings.n):
        entry = dataset[number]
        yield {
            "messages": [{"role": "user", "content": f"{entry['question']}\n\n{DEMAND}"}],
            "reference": {"task": settings.task, "config": settings.config, "entry": pack(entry)},
            "fields": {},
            "strata": {"task": settings.task},
            "cluster": cluster(dataset, settings.task, number, entry),
        }
