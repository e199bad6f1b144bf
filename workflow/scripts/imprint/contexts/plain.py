"""The example as it is: its messages, and nothing else in the context."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from imprint.contexts import Message, Request
from imprint.plugins import Strict


class Settings(Strict):
    """No settings."""


def turns(messages: list[Message], settings: Settings, ask: str = "generate") -> Generator[Request, str, None]:
    """One request with the messages of the example."""
    yield Request(messages)


def target(row: dict[str, Any], settings: Settings) -> list[Message]:
    """A training row as it is."""
    messages: list[Message] = row["messages"]
    return messages
