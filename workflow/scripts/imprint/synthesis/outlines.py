"""Dialogues in the form that a prior prompt asks for: an outline of the answer in the first part, the answer in the
second. A small model never writes that form by itself, so reinforcement fine-tuning under a prior prompt would have
nothing to reward. A short fit on these rows, under the same prompt, first teaches the model the form.

    "Cook it in less water. Chill it overnight. Use a wide pan."    with sentences 2 and words 3 becomes
    <plan>1. Cook it in 2. Chill it overnight</plan>
    <answer>Cook it in less water. Chill it overnight.</answer>

No model is asked: an outline holds the first words of each sentence.
"""

from __future__ import annotations

import re

from pydantic import Field

from imprint.runtime.plugins import Inputs, Strict
from imprint.scoring.forms import CLOSE, OPEN, well_formed
from imprint.synthesis import SynthesisedRows
from imprint.tables.inputs import Read

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Settings(Strict):
    source: str = Field(alias="from", description="dataset of dialogues with assistant turns")
    style: str = Field("plan", pattern="^[a-z]+$", description="tag of the first part, the prior prompt's style")
    sentences: int = Field(2, ge=1, description="sentences of an answer that are kept, from its beginning")
    words: int = Field(4, ge=1, description="words of a sentence that stand in the outline, from its beginning")


def inputs(settings: Settings) -> Inputs:
    return Inputs(datasets=(settings.source,))


def outlined(answer: str, settings: Settings) -> str:
    """The beginning of an answer, with its outline before it."""
    kept = SENTENCE_END.split(answer.strip())[: settings.sentences]
    points = (" ".join(sentence.split()[: settings.words]).rstrip(".,;:!?") for sentence in kept)
    outline = " ".join(f"{number}. {point}" for number, point in enumerate(points, 1))
    return f"<{settings.style}>{outline}</{settings.style}>\n{OPEN}{' '.join(kept)}{CLOSE}"


def rows(settings: Settings, inputs: Read, ask: None) -> SynthesisedRows:
    """Every row whose outlined turns have the form. A row with a tag in its own text does not get the form; it is left
    out, and an attempt says so. Rows keep their ids, so that leakage is judged by the requests they came from."""
    outlined_rows, attempts = [], []
    for row in inputs.datasets[settings.source]:
        messages = [
            {**turn, "content": outlined(turn["content"], settings)} if turn["role"] == "assistant" else turn
            for turn in row["messages"]
        ]
        written = [turn["content"] for turn in messages if turn["role"] == "assistant"]
        kept = bool(written) and all(well_formed(text, settings.style) for text in written)
        if kept:
            outlined_rows.append({**row, "messages": messages})
        attempts.append(
            {
                "example_id": row["example_id"],
                "kept": kept,
                "reason": None if kept else "not of the asked-for form",
                "response": written[0] if written else None,
            }
        )
    return SynthesisedRows(outlined_rows, attempts)
