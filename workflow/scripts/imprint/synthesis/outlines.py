"""Dialogues in the form that a prior prompt asks for: an outline of the answer in the first part, the answer in the
second. A small model never writes that form by itself, so that reinforcement fine-tuning under a prior prompt has
nothing to reward; a short fit on such rows under the same prompt gives it a start.

    "Cook it in less water. Chill it overnight. Use a wide pan."    with sentences 2 and words 3 becomes
    <plan>1. Cook it in 2. Chill it overnight</plan>
    <answer>Cook it in less water. Chill it overnight.</answer>

No model is asked: an outline is the beginnings of the sentences.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from imprint.methods import Inputs
from imprint.plugins import Strict
from imprint.scores.format import CLOSE, OPEN, well_formed
from imprint.synthesis import Made

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Settings(Strict):
    source: str = Field(alias="from", description="dataset of dialogues with assistant turns")
    style: str = Field("plan", pattern="^[a-z]+$", description="tag of the first part, the prior prompt's style")
    sentences: int = Field(2, ge=1, description="sentences of an answer that are kept, from its beginning")
    words: int = Field(4, ge=1, description="words of a sentence that stand in the outline, from its beginning")


def inputs(settings: Settings) -> Inputs:
    return Inputs(datasets=(settings.source,))


def outlined(answer: str, settings: Settings) -> str:
    """An answer's beginning behind its outline."""
    kept = SENTENCE_END.split(answer.strip())[: settings.sentences]
    points = (" ".join(sentence.split()[: settings.words]).rstrip(".,;:!?") for sentence in kept)
    outline = " ".join(f"{number}. {point}" for number, point in enumerate(points, 1))
    return f"<{settings.style}>{outline}</{settings.style}>\n{OPEN}{' '.join(kept)}{CLOSE}"


def rows(settings: Settings, datasets: dict[str, list[dict[str, Any]]], ask: None) -> Made:
    """Every row whose outlined turns have the form; one that has not (it holds a tag itself) is left out and counted.
    Rows keep their ids, so that leakage is judged by the requests they came from."""
    made, attempts = [], []
    for row in datasets[settings.source]:
        messages = [
            {**turn, "content": outlined(turn["content"], settings)} if turn["role"] == "assistant" else turn
            for turn in row["messages"]
        ]
        written = [turn["content"] for turn in messages if turn["role"] == "assistant"]
        kept = bool(written) and all(well_formed(text, settings.style) for text in written)
        if kept:
            made.append({**row, "messages": messages})
        attempts.append(
            {
                "example_id": row["example_id"],
                "kept": kept,
                "reason": None if kept else "not of the asked-for form",
                "response": written[0] if written else None,
            }
        )
    return Made(made, attempts)
