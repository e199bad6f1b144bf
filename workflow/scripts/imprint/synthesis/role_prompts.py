"""Role prompts written by a teacher: the synthesis step of self-prompt tuning (Kong et al., arXiv 2407.08995).
Roles that were written elsewhere need no synthesis; a bundled file has them as `fields: {"role_prompt": "..."}` of its
lines.

The paper's annotation instruction is not public; the instruction, filters and examples here are ours. The teacher sees
the question and its answer, so a filter looks for the answer in the role. The teacher may be asked several times for a
row, at a temperature. Every attempt is a row of the synthesis table, with the reason if it was rejected.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from pydantic import Field

from imprint.models.chat_text import Message
from imprint.policies.dialogue import Request
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict
from imprint.synthesis import SynthesisedRows
from imprint.tables.inputs import Read

WORDS = (20, 120)
"""Fewest and most words of a role prompt."""
GRAM = 8
"""A role copies a text if it shares this many words in a row with it."""
OPENING = "You are"

INSTRUCTION = (
    "Name the expert who is best placed to answer the question below, and write a short role prompt for that expert: "
    'two or three sentences in the second person that begin with "You are" and say why this expert has an advantage '
    "on this question. Do not answer the question and do not give the answer away."
)

# Two worked examples from fields that the bundled dialogues do not cover; a role that copies them is rejected.
EXAMPLES = (
    (
        "Why do cats knead blankets with their paws?",
        "You are a veterinarian who specialises in feline behaviour. Years of watching kittens grow up have taught you "
        "where the odd habits of adult cats come from.",
    ),
    (
        "How do I get a red wine stain out of a carpet?",
        "You are the owner of a carpet-cleaning firm with thirty years of emergencies behind you. You know which "
        "household products rescue a fibre and which ones ruin it for good.",
    ),
)


class Settings(Strict):
    source: str = Field(alias="from", description="dataset of dialogues")
    teacher: str = Field(description="arm that writes the role prompts")
    n: int | None = Field(None, ge=1, description="annotate only the first n rows; null is all")
    attempts: int = Field(4, ge=1, le=64, description="times a row may be asked for")
    temperature: float = Field(0.8, gt=0, le=10, description="of the teacher")
    max_new_tokens: int = Field(120, ge=16, description="of a role prompt")
    seed: int = Field(0, ge=0, description="of the teacher's sampling")
    min_yield: float = Field(0.5, ge=0, le=1, description="below this share of kept rows the run stops")


def inputs(settings: Settings) -> Inputs:
    return Inputs(datasets=(settings.source,))


def teacher(settings: Settings) -> str:
    """The arm that writes the role prompts."""
    return settings.teacher


def request(row: dict[str, Any], settings: Settings) -> Request:
    """The request to the teacher: the worked examples as earlier turns, then this row's question and answer, each
    behind the instruction. The first words of a role prompt open the teacher's turn."""
    turns: list[Message] = []
    for question, role in EXAMPLES:
        turns += [{"role": "user", "content": f"{INSTRUCTION}\n\nQuestion: {question}"}]
        turns += [{"role": "assistant", "content": role}]
    question, answer = _first_exchange(row)
    task = f"{INSTRUCTION}\n\nQuestion: {question}\n\nReference answer, not to be repeated: {answer}"
    turns.append({"role": "user", "content": task})
    return Request(turns, prefill=OPENING, max_new_tokens=settings.max_new_tokens, stop=("\n",))


def _first_exchange(row: dict[str, Any]) -> tuple[str, str]:
    question = next((m["content"] for m in row["messages"] if m["role"] == "user"), None)
    answer = next((m["content"] for m in row["messages"] if m["role"] == "assistant"), None)
    if question is None or answer is None:
        raise ImprintError(f"example {row['example_id']} has no user turn with an answer; role prompts need dialogues")
    return question, answer


def _grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)}


EXAMPLE_GRAMS = frozenset(gram for _, role in EXAMPLES for gram in _grams(role))


def rejection(role: str, answer: str, cut: bool = False) -> str | None:
    """Why a role prompt is rejected, or None if it is kept. `cut`: the token limit ended it."""
    words = len(role.split())
    if not role.startswith(OPENING):
        return "does not begin with 'You are'"
    if cut:
        return "cut at the token limit"
    if not WORDS[0] <= words <= WORDS[1]:
        return f"not {WORDS[0]} to {WORDS[1]} words"
    if "\n" in role.strip():
        return "more than one paragraph"
    if "[Role]" in role or "[Answer]" in role:
        return "holds a delimiter"
    if _grams(role) & _grams(answer) or answer.strip().casefold() in role.casefold():
        return "leaks the answer"
    if _grams(role) & EXAMPLE_GRAMS:
        return "copies an example"
    return None


def rows(
    settings: Settings,
    inputs: Read,
    ask: Callable[..., list[Any]],
) -> SynthesisedRows:
    """The rows with a usable role prompt, and all attempts. Rows whose role is rejected are asked for again, up to
    `attempts` times. Raises ImprintError if less than `min_yield` of the rows get a role."""
    todo = inputs.datasets[settings.source][: settings.n]
    total = len(todo)
    kept: dict[str, str] = {}
    attempts: list[dict[str, Any]] = []
    for attempt in range(settings.attempts):
        requests = [request(row, settings) for row in todo]
        responses = ask(requests, f"attempt{attempt}", temperature=settings.temperature, seed=settings.seed + attempt)
        again = []
        for row, response in zip(todo, responses, strict=True):
            role = f"{OPENING}{response.text or ''}".strip()
            reason = response.error or rejection(role, _first_exchange(row)[1], response.finish_reason == "length")
            if reason is None and role in kept.values():
                reason = "repeats another row's role"
            if reason is None:
                kept[row["example_id"]] = role
            else:
                again.append(row)
            result = {"kept": reason is None, "reason": reason, "response": role}
            attempts.append({"example_id": row["example_id"], **result})
        todo = again
        if not todo:
            break
    if len(kept) < settings.min_yield * total:
        reasons = Counter(attempt["reason"] for attempt in attempts if attempt["reason"])
        raise ImprintError(
            f"the teacher '{settings.teacher}' gave a usable role prompt for {len(kept)} of {total} rows, under the "
            f"{settings.min_yield:.0%} of min_yield; rejected because: "
            + "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
            + "; take a stronger teacher, more `attempts`, or a lower `min_yield`"
        )
    with_roles = [
        {**row, "fields": {**row["fields"], "role_prompt": kept[row["example_id"]]}}
        for row in inputs.datasets[settings.source][: settings.n]
        if row["example_id"] in kept
    ]
    return SynthesisedRows(with_roles, attempts)
