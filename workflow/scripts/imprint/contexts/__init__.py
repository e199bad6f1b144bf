"""Contexts: how an example is put to a model. A context is a generator that yields requests and is sent the
responses, so that one call and many calls are one mechanism; only the last request's response is scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


class Message(TypedDict):
    """One turn of a dialogue: role is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Request:
    """One call to a model: the turns so far, and how its own turn begins and ends.

    `prefill` opens the assistant's turn (it is part of the prompt, not of the response). A request with
    `final=False` is an intermediate turn, generated greedily until one of `stop` or `max_new_tokens`.
    """

    messages: list[Message]
    prefill: str = ""
    final: bool = True
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
