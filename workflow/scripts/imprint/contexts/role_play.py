"""Role-play prompting with two-round immersion (Kong et al., arXiv 2308.07702): before the question, a user turn gives
the model a role and an assistant turn accepts it. The paper writes one such pair per task. The wording here is ours,
and the default role is a general one, so that one setting serves every eval.

user: From now on you are ...        assistant: Understood ...        user: the question
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from imprint.models.chat_text import Message
from imprint.policies.dialogue import Request, Turns
from imprint.runtime.plugins import Strict
from imprint.tables.inputs import Read

ROLE = (
    "From now on you are a seasoned expert in whatever field the next request comes from, known for reading a request "
    "to its last word and for answers that are correct and do exactly what was asked. I am a colleague who relies on "
    "your judgement and has brought you a request."
)
FEEDBACK = (
    "Happy to take that on. As an expert in your field I will read the request closely, keep to every detail of it, "
    "and give you an answer that you can rely on. What would you like me to look at?"
)


class Settings(Strict):
    role: str = Field(ROLE, min_length=1, description="user turn that gives the model its role")
    feedback: str = Field(FEEDBACK, min_length=1, description="assistant turn that accepts the role")


def _immersed(messages: list[Message], settings: Settings) -> list[Message]:
    """The messages with the two turns of the role before them; a leading system turn stays in front."""
    lead = 1 if messages and messages[0]["role"] == "system" else 0
    rounds: list[Message] = [
        {"role": "user", "content": settings.role},
        {"role": "assistant", "content": settings.feedback},
    ]
    return [*messages[:lead], *rounds, *messages[lead:]]


def turns(request: Request, row: dict[str, Any], settings: Settings, inputs: Read) -> Turns:
    """One request. Plain text (no messages) is not changed, since no role can precede it."""
    yield [replace(request, messages=_immersed(request.messages, settings)) if request.messages else request]
    return None


def target(row: dict[str, Any], settings: Settings) -> list[Message]:
    """The row's messages with the two turns of the role before them."""
    return _immersed(row["messages"], settings)
