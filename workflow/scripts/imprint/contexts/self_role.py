"""Self-prompt tuning (Kong et al., arXiv 2407.08995): the model writes a role prompt for itself, then answers in it.
The paper's layout is not public; this one is ours, a single assistant turn:

[Role] You are a pharmacist who ...
[Answer] Take it with food, because ...

A generated response is such a turn, written in one pass; the answer begins behind the first `[Answer]`. The role has
tokens of its own (`role_tokens`), so that the answer has as many as under any other context. If options are scored by
log-likelihood, the model first writes its role, and the options are scored behind it. Otherwise the role would have no
effect.
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

ROLE = "[Role]"
ANSWER = "[Answer]"


class Settings(Strict):
    role_tokens: int = Field(
        192,
        ge=1,
        description="most tokens of the role, with its delimiters; they are not the answer's. The default has room for "
        "the 120 words that `synth: role_prompts` lets a role have. A response whose role is longer has the eval's "
        "`max_new_tokens` in all",
    )


def turns(request: Request, row: dict[str, Any], settings: Settings, inputs: Read) -> Turns:
    """One request, or two if options are scored: the model first writes the role greedily, and the options are then
    scored behind it. This role is cut where it does not end within `role_tokens`. Plain text (no messages) has no
    assistant turn to hold a role, and is not changed."""
    if request.messages and request.options:
        role_request = Request(request.messages, ROLE, settings.role_tokens, (ANSWER,), temperature=0.0, top_p=1.0)
        (role,) = yield [role_request]
        yield [replace(request, prefill=f"{ROLE}{(role.text or '').rstrip()}\n{ANSWER} {request.prefill}")]
    else:
        yield [request.opened_by(ANSWER, settings.role_tokens) if request.messages else request]
    return None


def answer(response: str, settings: Settings) -> tuple[str, bool]:
    """The text behind the first `[Answer]`, and True. Without an `[Answer]`, the whole response and False."""
    _, delimiter, text = response.partition(ANSWER)
    return (text.lstrip(), True) if delimiter else (response, False)


def target(row: dict[str, Any], settings: Settings) -> list[Message]:
    """The row's messages, with the role prompt in `fields.role_prompt` at the beginning of the first assistant turn.
    Raises ImprintError for a row without a role prompt or an assistant turn. A row whose text holds a delimiter is also
    an error, since the model would learn to split its answers in the wrong place."""
    where = f"example {row['example_id']}"
    role = row["fields"].get("role_prompt")
    if not isinstance(role, str) or not role.strip():
        raise ImprintError(f"{where} has no role prompt; train on a dataset whose fields hold role_prompt")
    for text in (role, *(message["content"] for message in row["messages"])):
        for delimiter in (ROLE, ANSWER):
            if delimiter in text:
                raise ImprintError(f"{where} holds the text {delimiter}, which separates role and answer; reword it")
    first = next((i for i, message in enumerate(row["messages"]) if message["role"] == "assistant"), None)
    if first is None:
        raise ImprintError(f"{where} has no assistant turn to train on")
    messages: list[Message] = [dict(message) for message in row["messages"]]  # type: ignore[misc]
    messages[first]["content"] = f"{ROLE} {role.strip()}\n{ANSWER} {messages[first]['content']}"
    return messages
