r"""Prior prompts (Taveekitworachai et al., arXiv 2505.14157): an instruction before the question that asks for a way of
working in one block and for the result in another. Under `fit` it is trained into the weights (pPE), under `apply` it
is only put to the model (iPE): one template serves both. The paper's wording is not public; this one is ours, and the
five styles differ in one clause and one tag only.

user: Reply in two marked parts. ... write out a plan and follow it step by step ...        How long does it take?
assistant: <plan>1. Find the distance. ...</plan>
           <answer>\boxed{12}</answer>

Style `none` adds nothing: it is the arm without a prior prompt, tested like the others.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

from pydantic import Field

from imprint.contexts import Message, Request
from imprint.errors import ImprintError
from imprint.plugins import Strict
from imprint.scores.format import CLOSE, OPEN, answer_block, well_formed

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
        160, ge=1, description="longest first part, in tokens, that is written before options are scored"
    )


def prompt(settings: Settings) -> str:
    """The prior prompt; empty for style none."""
    if settings.style == "none":
        return ""
    result = BOXED if settings.boxed else RESULT
    return SKELETON.format(tag=settings.style, clause=CLAUSES[settings.style], result=result)


def _asked(messages: list[Message], settings: Settings) -> list[Message]:
    """The messages with the prompt before the words of the first user turn."""
    text = prompt(settings)
    made = list(messages)
    place = next((i for i, message in enumerate(made) if message["role"] == "user"), None)
    if text and place is not None:
        made[place] = {"role": "user", "content": f"{text}\n\n{made[place]['content']}"}
    return made


def _request(messages: list[Message], settings: Settings, prefill: str = "", **how: Any) -> Request:
    made = _asked(messages, settings)
    if settings.layout == "chat":
        return Request(made, prefill=prefill, **how)
    lines = [f"{message['role'].capitalize()}: {message['content']}" for message in made]
    opening = "\n".join([*lines, "Assistant:"]) + (f" {prefill}" if prefill else "")
    return Request([], prefill=opening, **{"stop": ("\nUser:",), **how})


def turns(messages: list[Message], settings: Settings, ask: str = "generate") -> Generator[Request, str, None]:
    """One request; two when options are scored (`ask` is "loglikelihood"): the first part is written, then the options
    are scored at the beginning of the answer. Plain text (no messages) stays as it is."""
    if not messages:
        yield Request(messages)
    elif ask == "loglikelihood" and settings.style != "none":
        tag = settings.style
        stop = (f"</{tag}>", OPEN)
        first = yield _request(
            messages, settings, f"<{tag}>", final=False, max_new_tokens=settings.first_part_tokens, stop=stop
        )
        yield _request(messages, settings, f"<{tag}>{first.rstrip()}</{tag}>\n{OPEN}")
    else:
        yield _request(messages, settings)


def answer(response: str, settings: Settings) -> tuple[str, bool]:
    """What is scored, and whether the response has the asked-for form. Broken tags never cost the answer: it is the
    last answer block, up to the end where it is not closed, and the whole response where there is none."""
    if settings.style == "none":
        return response, True
    before, opened, rest = response.rpartition(OPEN)
    text = rest.partition(CLOSE)[0] if opened else before + rest
    return text.strip(), well_formed(response, settings.style)


def rewarded(response: str, settings: Settings) -> str:
    """What a reward for the answer reads while training: a closed answer block, or nothing."""
    return response if settings.style == "none" else answer_block(response)


def target(row: dict[str, Any], settings: Settings) -> list[Message]:
    """A training row with the prompt before it. Its assistant turns are trained on as they are, so they must have the
    asked-for form; a row that does not is an error."""
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
    return _asked(messages, settings)
