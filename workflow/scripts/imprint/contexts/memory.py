"""A memory: before the question stand the most similar requests of another arm's run, each with what that arm answered.
Similar are questions that share words; no model takes part. An arm with a memory has seen the rows of the eval that the
run is of, so it must say `transductive: true` if it takes that eval. The example that is asked is never remembered
itself.

user: How do tides work?        assistant: (what the other arm answered)        user: How do winds work?
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from imprint.models.chat_text import Message
from imprint.policies.dialogue import Request, Turns
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict
from imprint.tables import content
from imprint.tables.inputs import Read


class Settings(Strict):
    arm: str = Field(description="the arm whose answers are remembered, whole, as it wrote them")
    eval: str = Field(
        description="the eval that it answered; of several samples the first counts. Its answers must be written ones: "
        "without any, every example is an error"
    )
    dataset: str = Field(
        description="the dataset of that eval, where the requests stand; with another, every example is an error"
    )
    k: int = Field(
        4,
        ge=1,
        description="how many requests stand before the question, the most similar one last; all that there are, if "
        "they are fewer. The default is ours. A prompt that becomes longer than the model's positions is an error",
    )


def inputs(settings: Settings) -> Inputs:
    """The run, and the dataset of its requests."""
    return Inputs(datasets=(settings.dataset,), runs=((settings.arm, settings.eval),))


def turns(request: Request, row: dict[str, Any], settings: Settings, inputs: Read) -> Turns:
    """One request. Plain text (no messages) has no question, and stays as it is. Raises ImprintError for a run without
    written answers, and for one that is not of the dataset."""
    yield [replace(request, messages=_reminded(request.messages, row, settings, inputs))]
    return None


def target(row: dict[str, Any], settings: Settings) -> list[Message]:
    """A fit would learn the remembered answers as well as the row's own: an error."""
    raise ImprintError(
        "context 'memory': a row cannot be trained on under it, since the remembered answers would be learned too; "
        "write it under `apply`"
    )


def _reminded(messages: list[Message], row: dict[str, Any], settings: Settings, inputs: Read) -> list[Message]:
    """The messages with the memory before them; a leading system turn stays in front."""
    if not messages:
        return messages
    past = _past(settings, inputs)
    words = _words(_question(messages))
    likeness = [_likeness(words, _words(_question(before["messages"]))) for before, _ in past]
    chosen: list[list[Message]] = []
    for place in sorted(range(len(past)), key=lambda place: (-likeness[place], place)):
        if len(chosen) == settings.k:
            break
        before, answer = past[place]
        if not _same(row, before):
            chosen.insert(0, [*_asked(before["messages"]), {"role": "assistant", "content": answer}])
    lead = 1 if messages[0]["role"] == "system" else 0
    return [*messages[:lead], *(message for exchange in chosen for message in exchange), *messages[lead:]]


def _past(settings: Settings, inputs: Read) -> list[tuple[dict[str, Any], str]]:
    """The rows of the dataset that the other arm has answered, in their order, with its answers. Rows without a user's
    turn are left out."""
    path = inputs.runs[settings.arm, settings.eval]
    answers = dict(_answers(path, path.stat().st_mtime_ns))
    rows = {row["example_id"]: row for row in inputs.datasets[settings.dataset]}
    if strange := answers.keys() - rows.keys():
        raise ImprintError(
            f"context 'memory': {len(strange)} answers in {path} are to no row of dataset '{settings.dataset}'; write "
            f"the dataset of the eval '{settings.eval}'"
        )
    past = [(row, answers[name]) for name, row in rows.items() if name in answers and _asked(row["messages"])]
    if not past:
        raise ImprintError(
            f"context 'memory': {path} holds no answers to remember; write an eval that '{settings.arm}' answers in "
            "words"
        )
    return past


@lru_cache(maxsize=8)
def _answers(path: Path, written: int) -> tuple[tuple[str, str], ...]:
    """(example, its first answer) of a generations file that was written at a time (ns). Errors, blank answers and
    options are none."""
    found: dict[str, str] = {}
    for row in parquet.read(path, "generations").to_pylist():
        said = row["final"] and row["error"] is None and row["finish_reason"] is not None
        if said and (row["response"] or "").strip():
            found.setdefault(row["example_id"], row["response"])
    return tuple(found.items())


def _asked(messages: list[Message]) -> list[Message]:
    """The turns of a request up to the user's last, without system turns; none where the user says nothing."""
    ends = [place + 1 for place, message in enumerate(messages) if message["role"] == "user"]
    return [message for message in messages[: max(ends, default=0)] if message["role"] != "system"]


def _question(messages: list[Message]) -> str:
    """The user's last turn."""
    return next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")


@lru_cache(maxsize=1 << 16)
def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


def _likeness(some: frozenset[str], others: frozenset[str]) -> float:
    """The share of words that two questions have in common (Jaccard's index): 0 to 1."""
    return len(some & others) / (len(some | others) or 1)


def _same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two rows are one example, as leakage is judged, or by every word that the user says: turns of few words
    are no content to `content.asked`."""
    return bool(content.asked(row) & content.asked(other)) or _said(row) == _said(other)


def _said(row: dict[str, Any]) -> list[list[str]]:
    """The words of every user's turn."""
    turns = [message["content"] for message in row["messages"] if message["role"] == "user"]
    return [re.findall(r"\w+", turn.casefold()) for turn in turns]
