r"""Prior prompts (Taveekitworachai et al., arXiv 2505.14157): an instruction before the question asks for a way of
working in one block and for the result in another. The same template serves training (`fit`, the paper's pPE) and
asking alone (`apply`, iPE). The paper's wording is not public; this one is ours. The five styles differ in one clause
and one tag only.

user: Reply in two marked parts. ... write out a plan and follow it step by step ...        How long does it take?
assistant: <plan>1. Find the distance. ...</plan>
           <answer>\boxed{12}</answer>

Style `none` adds nothing: an arm without a prior prompt is tested like the others.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from imprint.models.chat_text import Message
from imprint.policies.dialogue import Request, Turns
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.scoring.forms import CLOSE, OPEN, answer_block, fenced, well_formed
from imprint.tables.inputs import Read

CLAUSES = {
    "think": "reason about the question in your own words, one thought after another",
    "plan": "write out a plan for the question and follow it one step after another",
    "code": "write out code for the question and follow what it does line by line",
    "knowledge": "recall the knowledge that the question needs, one fact after another",
    "examples": "work from the examples that were given, one example after another",
}
SKELETON = (
    "Reply in two marked parts. The first part stands between <{tag}> and </{tag}>: there you {clause}. The second "
    "part stands between <answer> and </answer>: there you give {result}. Write nothing outside these parts."
)
RESULT = "only the final result"
BOXED = "only the final result, inside \\boxed{}"


class Settings(Strict):
    style: Literal["think", "plan", "code", "knowledge", "examples", "none"] = Field(
        description="what the first part is for; none adds no prompt"
    )
    boxed: bool = Field(False, description="ask for the result inside \\boxed{}, as for questions of mathematics")
    layout: Literal["chat", "text"] = Field(
        "chat",
        description="chat puts the prompt before the user's first turn; text writes it and the dialogue as plain text, "
        "for base models that know no chat template",
    )
    first_part_tokens: int = Field(
        256,
        ge=1,
        description="most tokens of the first part, with its tags; they are not the answer's. A response whose first "
        "part is longer has the eval's `max_new_tokens` in all",
    )


def prompt(settings: Settings) -> str:
    """The prior prompt; empty for style none."""
    if settings.style == "none":
        return ""
    result = BOXED if settings.boxed else RESULT
    return SKELETON.format(tag=settings.style, clause=CLAUSES[settings.style], result=result)


def _with_prompt(messages: list[Message], settings: Settings) -> list[Message]:
    """The messages with the prompt before the words of the first user turn."""
    text = prompt(settings)
    prompted = list(messages)
    place = next((i for i, message in enumerate(prompted) if message["role"] == "user"), None)
    if text and place is not None:
        prompted[place] = {"role": "user", "content": f"{text}\n\n{prompted[place]['content']}"}
    return prompted


def _prompted(request: Request, settings: Settings) -> Request:
    """The request with the prompt before it, in the layout that the settings name."""
    messages = _with_prompt(request.messages, settings)
    if settings.layout == "chat":
        return replace(request, messages=messages)
    lines = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
    opening = "\n".join([*lines, "Assistant:"]) + (f" {request.prefill}" if request.prefill else "")
    return replace(request, messages=[], prefill=opening, stop=request.stop or ("\nUser:",))


def turns(request: Request, row: dict[str, Any], settings: Settings, inputs: Read) -> Turns:
    """One request, or two if options are scored: the model writes the first part greedily, and the options are then
    scored at the beginning of the answer. Plain text (no messages) is not changed."""
    if not request.messages:
        yield [request]
    elif request.options and settings.style != "none":
        tag = settings.style
        stop = (f"</{tag}>", OPEN)
        part = Request(request.messages, f"<{tag}>", settings.first_part_tokens, stop, temperature=0.0, top_p=1.0)
        (first,) = yield [_prompted(part, settings)]
        opening = f"<{tag}>{(first.text or '').rstrip()}</{tag}>\n{OPEN}{request.prefill}"
        yield [_prompted(replace(request, prefill=opening), settings)]
    elif settings.style != "none":
        yield [_prompted(request.opened_by(OPEN, settings.first_part_tokens), settings)]
    else:
        yield [_prompted(request, settings)]
    return None


def answer(response: str, settings: Settings) -> tuple[str, bool]:
    """The text that is scored, and whether the response has the asked-for form. Broken tags never cost the answer: the
    last answer block counts, closed or not, and without one the whole response."""
    if settings.style == "none":
        return response, True
    _, opened, last = response.rpartition(OPEN)
    text = last.partition(CLOSE)[0] if opened else response
    return text.strip(), well_formed(response, settings.style)


def rewarded(response: str, settings: Settings) -> str | None:
    """The text that a reward for the answer reads while training: a closed answer block, or an empty text."""
    return None if settings.style == "none" else answer_block(response)


def program(response: str, settings: Settings) -> str | None:
    """Both parts as blocks of code, the answer last. Under every style a program may stand in either part: the prompt
    asks for "only the final result" in the answer, so an answer may name a function that the first part writes."""
    if settings.style == "none":
        return None
    parts = re.split(f"</?(?:{settings.style}|answer)>", response)
    return "\n".join(fenced(part) for part in parts if part.strip())


def form(settings: Settings) -> str | None:
    """The tag of the first part, or None for style none."""
    return None if settings.style == "none" else settings.style


def target(row: dict[str, Any], settings: Settings) -> list[Message]:
    """The row's messages with the prompt before them. Training does not change the assistant's turns, so they must
    already have the asked-for form. Raises ImprintError if they do not, and for the layout `text`."""
    if settings.layout == "text":
        raise ImprintError("prior_prompt: a dialogue is trained on in its chat template; write layout: chat")
    messages: list[Message] = row["messages"]
    if settings.style != "none":
        for message in messages:
            if message["role"] == "assistant" and not well_formed(message["content"], settings.style):
                raise ImprintError(
                    f"example {row['example_id']}: an assistant turn has no <{settings.style}> part before its "
                    "<answer> part; train on a dataset whose answers have the form that the prompt asks for"
                )
    return _with_prompt(messages, settings)
