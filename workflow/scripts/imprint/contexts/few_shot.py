"""Examples before the question: rows of a dataset, shown with their answers (in-context learning, Brown et al., arXiv
2005.14165).

    context: {few_shot: {data: antonyms, shots: 5}}

With `layout: turns` the examples are earlier turns of the dialogue. With `layout: text` there is no chat template, and
examples and question are lines of plain text, which models answer that were not trained on dialogues:

    Q: hot
    A: cold

    Q: flawed
    A:

The examples are drawn by the question's content, so every question has its own. A row is never an example of itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from imprint.models.chat_text import Message
from imprint.policies.dialogue import Request, Turns
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict
from imprint.tables.inputs import Read

Layout = Literal["turns", "text"]


class Settings(Strict):
    data: str = Field(description="dataset of the examples: questions, each with its answer")
    shots: int = Field(5, ge=0, description="number of examples; 0 shows none, and leaves the layout")
    layout: Layout = Field("turns", description="`turns` of the dialogue, or lines of plain `text`")
    seed: int = Field(0, description="another seed draws other examples")


def inputs(settings: Settings) -> Inputs:
    return Inputs(datasets=(settings.data,))


def shown(request: Request, rows: Sequence[dict[str, Any]], shots: int, layout: Layout, seed: str) -> Request:
    """The request with `shots` rows before it, drawn by hash of the seed and of what the user says. Rows in which the
    user says the same are left out. Raises ImprintError if there are too few rows, for a row without an answer, and
    for a dialogue of several turns in the layout `text`."""
    asked = _said(request.messages, "user")
    others = [row for row in rows if _said(row["messages"], "user") != asked]
    if len(others) < shots:
        raise ImprintError(f"few_shot: {shots} examples are asked for, and there are {len(others)} other rows")

    def key(row: dict[str, Any]) -> bytes:
        return hashlib.sha256("/".join((seed, *asked, row["example_id"])).encode()).digest()

    examples = sorted(others, key=key)[:shots]
    for row in examples:
        if not row["messages"] or row["messages"][-1]["role"] != "assistant":
            raise ImprintError(
                f"few_shot: example {row['example_id']} ends without an assistant's turn; take a dataset of dialogues"
            )
    if layout == "text":
        pairs = [(_only(row["messages"], "user"), _only(row["messages"], "assistant")) for row in examples]
        lines = [f"Q: {question}\nA: {answer}\n\n" for question, answer in pairs]
        prefill = "".join([*lines, f"Q: {_only(request.messages, 'user')}\nA:"])
        return replace(request, messages=[], prefill=prefill, stop=(*request.stop, "\n"))
    lead = 1 if request.messages[0]["role"] == "system" else 0
    turns = [message for row in examples for message in row["messages"] if message["role"] != "system"]
    return replace(request, messages=[*request.messages[:lead], *turns, *request.messages[lead:]])


def _said(messages: Sequence[Message], role: str) -> list[str]:
    return [message["content"] for message in messages if message["role"] == role]


def _only(messages: Sequence[Message], role: str) -> str:
    """The one text of a role."""
    said = _said(messages, role)
    if len(said) != 1:
        raise ImprintError(f"few_shot: found {len(said)} turns of the {role}; `layout: text` needs one of each")
    return said[0]


def turns(request: Request, row: dict[str, Any], settings: Settings, inputs: Read) -> Turns:
    """One request. Plain text (no messages) is not changed, since no example can precede it."""
    if request.messages:
        request = shown(request, inputs.datasets[settings.data], settings.shots, settings.layout, str(settings.seed))
    yield [request]
    return None
