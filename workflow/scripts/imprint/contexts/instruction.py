"""An instruction behind the words of the last user turn: the place in the prompt, for a behaviour that an arm may also
have in its activations or its weights.

    context: {instruction: "Wrap a title in double angular brackets."}

user: How does rain form? Wrap a title in double angular brackets.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from imprint.models.chat_text import Message
from imprint.policies.dialogue import Request, Turns
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.tables.inputs import Read


class Settings(Strict):
    text: str = Field(min_length=1, description="the instruction, in one or more sentences")


def turns(request: Request, row: dict[str, Any], settings: Settings, inputs: Read) -> Turns:
    """One request. Plain text (no messages) is not changed, since nobody is told anything there. Raises ImprintError
    for a dialogue without a user turn."""
    if request.messages:
        places = [place for place, message in enumerate(request.messages) if message["role"] == "user"]
        if not places:
            raise ImprintError("context 'instruction': the example has no user turn to which it could be added")
        told: Message = {"role": "user", "content": f"{request.messages[places[-1]]['content']} {settings.text}"}
        messages = [*request.messages[: places[-1]], told, *request.messages[places[-1] + 1 :]]
        request = replace(request, messages=messages)
    yield [request]
    return None
