"""Self-prompt tuning (Kong et al., arXiv 2407.08995): the model writes a role prompt for itself, then answers in it.
The paper's layout is not public; this one is ours, a single assistant turn:

[Role] You are a pharmacist who ...
[Answer] Take it with food, because ...

A generated answer is that turn in one pass, split at the first `[Answer]`. When options are scored by log-likelihood,
the model first writes its role, and the options are scored behind it; without that the role would play no part.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from pydantic import Field

from imprint.contexts import Message, Request
from imprint.errors import ImprintError
from imprint.plugins import Strict

ROLE = "[Role]"
ANSWER = "[Answer]"


class Settings(Strict):
    role_tokens: int = Field(
        96, ge=1, description="longest role prompt, in tokens, that is written before options are scored"
    )


def turns(messages: list[Message], settings: Settings, ask: str = "generate") -> Generator[Request, str, None]:
    """One request; two when options are scored (`ask` is "loglikelihood"): the role, then the turn that continues it.
    A role that does not come to `[Answer]` within `role_tokens` is used as far as it got. Plain text (no messages) has
    no assistant turn to write a role in, and stays as it is."""
    if messages and ask == "loglikelihood":
        role = yield Request(messages, prefill=ROLE, final=False, max_new_tokens=settings.role_tokens, stop=(ANSWER,))
        yield Request(messages, prefill=f"{ROLE}{role.rstrip()}\n{ANSWER} ")
    else:
        yield Request(messages)


def answer(response: str, settings: Settings) -> tuple[str, bool]:
    """What follows the first `[Answer]`, and True; the whole response and False where there is none."""
    _, delimiter, rest = response.partition(ANSWER)
    return (rest.lstrip(), True) if delimiter else (response, False)


def target(row: dict[str, Any], settings: Settings) -> list[Message]:
    """A training row whose first assistant turn begins with the role prompt in `fields.role_prompt`. A row without one,
    or that holds a delimiter itself, is an error: the model would learn to split its answers in the wrong place."""
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
