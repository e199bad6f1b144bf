"""Self-prompt tuning (Kong et al., arXiv 2407.08995): the model writes a role prompt for itself, then answers in it.
The paper's layout is not public; this one is ours, a single assistant turn:

[Role] You are a pharmacist who ...
[Answer] Take it with food, because ...

A generated response is such a turn, written in one pass; the answer begins behind the first `[Answer]`. The role has
tokens of its own (`role_tokens`), so that the answer has as many as under any other context. If options are scored by
log-likelihood, the model first writes its role, and the options are scored behind it. Otherwise the role would have no
effect.

`before_answer` makes controls of the same arm. In each the model first writes its role, so that all write as much:

    role      (default)                 does the whole method help?
    nothing   [Answer] ...              does the text of the role act, or have the weights changed?
    filler    [Role] Some text ...      does any text of this length act?
              [Answer] ...

Two controls are other contexts or data: `given_role`, a role for an arm that was not trained to write one, and
`synth: shuffled_roles`, training on the roles of other dialogues.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, islice
from typing import Any, Literal

from pydantic import Field

from imprint.models.chat_text import Message
from imprint.policies.dialogue import Request, Turns
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.tables.inputs import Read

ROLE = "[Role]"
ANSWER = "[Answer]"
FILLER = (
    "This text stands here before the answer. It does not say who answers, and it does not say anything about the "
    "question. It is here so that something of the same length is here."
)


class Settings(Strict):
    role_tokens: int = Field(
        192,
        ge=1,
        description="most tokens of the role, with its delimiters; they are not the answer's. The default has room for "
        "the 120 words that `synth: role_prompts` lets a role have. A response whose role is longer has the eval's "
        "`max_new_tokens` in all",
    )
    before_answer: Literal["role", "nothing", "filler"] = Field(
        "role",
        description="what the model has before it when it answers: its role; `nothing`, where the role that it wrote "
        "is left out; or `filler`, where a fixed neutral text of as many words as the role stands in the role's place, "
        "repeated or cut. For the last two the role is written greedily, in a response of its own",
    )


def turns(request: Request, row: dict[str, Any], settings: Settings, inputs: Read) -> Turns:
    """One request, or two if options are scored or if the role does not stay before the answer: the model first writes
    the role greedily. This role is cut where it does not end within `role_tokens`. Plain text (no messages) has no
    assistant turn to hold a role, and is not changed."""
    if not request.messages:
        yield [request]
    elif settings.before_answer == "role" and not request.options:
        yield [request.opened_by(ANSWER, settings.role_tokens)]
    else:
        role_request = Request(request.messages, ROLE, settings.role_tokens, (ANSWER,), temperature=0.0, top_p=1.0)
        (role,) = yield [role_request]
        begun = f"{_before(role.text or '', settings)}{ANSWER} {request.prefill}"
        # A written answer begins with its own space, as in training; in front of options the engine moves the space.
        yield [replace(request, prefill=begun if request.options else begun.rstrip())]
    return None


def _before(role: str, settings: Settings) -> str:
    """What stands before `[Answer]`, when the model has written `role`."""
    if settings.before_answer == "nothing":
        return ""
    filler = " " + " ".join(islice(cycle(FILLER.split()), len(role.split())))
    return f"{ROLE}{role.rstrip() if settings.before_answer == 'role' else filler}\n"


def role_in(response: str, final: bool) -> str:
    """The role in an arm's first response to an example, or an empty text if it has none. Before options are scored,
    the first response is not the final one, and is the role alone."""
    before, delimiter, _ = response.partition(ANSWER)
    return before.rpartition(ROLE)[2].strip() if delimiter or not final else ""


def answer(response: str, settings: Settings) -> tuple[str, bool]:
    """The text behind the first `[Answer]`, and True. Without an `[Answer]`, the whole response and False. If the role
    does not stay before the answer, the response begins behind `[Answer]`."""
    if settings.before_answer != "role":
        return response.lstrip(), True
    _, delimiter, text = response.partition(ANSWER)
    return (text.lstrip(), True) if delimiter else (response, False)


def target(row: dict[str, Any], settings: Settings) -> list[Message]:
    """The row's messages, with the role prompt in `fields.role_prompt` at the beginning of the first assistant turn.
    Raises ImprintError for a row without a role prompt or an assistant turn, and where the role is to be left out. A
    row whose text holds a delimiter is also an error, since the model would learn to split its answers in the wrong
    place."""
    where = f"example {row['example_id']}"
    if settings.before_answer != "role":
        raise ImprintError(
            f"context 'self_role': before_answer: {settings.before_answer} is about asking; write it under `apply`"
        )
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
