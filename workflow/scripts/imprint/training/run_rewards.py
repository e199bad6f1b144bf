"""What a reward gives the responses of a run, for plug-ins that make dialogues to train on out of a run.

A response is text to train on. It is judged as a completion is (`training/rewards.py`), and nothing else reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.scoring import bounded
from imprint.training.rewards import Reward


class Rewarded(NamedTuple):
    """A response of a run, and its value; or None as the value, and why there is none."""

    example_id: str
    sample: int
    text: str
    value: float | None
    reason: str | None


def rewarded(run: Path, examples: Iterable[dict[str, Any]], reward: Reward, where: str) -> Iterator[Rewarded]:
    """The final response of each sample in a file of generations, in the file's order. A response that is cut, blank or
    not there has no value, and neither has one whose check comes to no verdict. `examples` are the rows of the
    dataset that the run answers; raises ImprintError for a run of other rows, where `where` opens the message."""
    by_id = {row["example_id"]: row for row in examples}
    for response in parquet.read(run, "generations").to_pylist():
        if not response["final"] and response["error"] is None:  # an error ends a dialogue before its final turn
            continue
        example = by_id.get(response["example_id"])
        if example is None:
            raise ImprintError(f"{where}: {run} answers rows that are not in the dataset; write that of the run's eval")
        text = response["response"] or ""
        value, reason = None, _unusable(response)
        if reason is None:
            value, reason = _value(reward, {**example, "state": None}, text)
        yield Rewarded(response["example_id"], response["sample"], text, value, reason)


def dialogue(example: dict[str, Any], answer: str) -> dict[str, Any]:
    """A row to train on: an example's messages, and the answer as the assistant's turn. It has no reference."""
    messages = [*example["messages"], {"role": "assistant", "content": answer}]
    return {**example, "messages": messages, "reference": None}


def _unusable(response: dict[str, Any]) -> str | None:
    """Why a response is not judged; None if it is."""
    if response["error"] is not None or response["finish_reason"] is None or not (response["response"] or "").strip():
        return "no written answer"
    return "cut at the limit of tokens" if response["finish_reason"] == "length" else None


def _value(reward: Reward, row: dict[str, Any], text: str) -> tuple[float | None, str | None]:
    try:
        value = reward.verified(row, text)
    except bounded.Failure:
        return None, "its check came to no verdict"
    return value, "the score gives it no value" if value is None else None
