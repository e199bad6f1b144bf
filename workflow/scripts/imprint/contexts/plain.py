"""The example without any change: the model gets its messages alone."""

from __future__ import annotations

from typing import Any

from imprint.models.chat_text import Message
from imprint.policies.dialogue import Request, Turns
from imprint.runtime.plugins import Strict
from imprint.tables.inputs import Read


class Settings(Strict):
    """No settings."""


def turns(request: Request, row: dict[str, Any], settings: Settings, inputs: Read) -> Turns:
    """The request itself."""
    yield [request]
    return None


def target(row: dict[str, Any], settings: Settings) -> list[Message]:
    """The row's own messages."""
    messages: list[Message] = row["messages"]
    return messages
