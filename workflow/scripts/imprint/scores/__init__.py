"""Scores: what a response is worth. A score module is also a reward and a data filter, so it is pure and bounded."""

from __future__ import annotations

from typing import NamedTuple

LONGEST = 200_000  # characters; a longer response is worth 0 as a reward, and follows no instruction


class Verdict(NamedTuple):
    """One metric of one response: `value` in the metric's unit, or None where it cannot be scored; `item` counts the
    parts of a response that are judged apart (the instructions of an IFEval prompt), `label` names the part."""

    metric: str
    value: float | None
    item: int | None = None
    label: str | None = None
    unparsed: bool = False


class Option(NamedTuple):
    """A given continuation: its text, its log-likelihood (nats) under the model, and its length in tokens."""

    text: str
    logprob: float
    tokens: int
