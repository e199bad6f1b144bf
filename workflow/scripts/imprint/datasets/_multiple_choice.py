"""Rows of questions with options, for the readers of multiple-choice sets.

An answer can be written, and is then scored by `choice`; or the options' likelihood is compared, by `options`. If the
options are listed, `reference.options` are their letters, as MMLU compares them, and `reference.names` their texts, so
that both scores take the same row. If they are not listed, `reference.options` are the texts themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from pydantic import Field

from imprint.runtime.plugins import Strict
from imprint.scoring.option_sets import LETTERS

DEMAND = "Which option is right? Give its letter."


class Listed(Strict):
    """How a question is asked."""

    listed: bool = Field(
        True,
        description="list the options under the question with letters, and ask for the letter, for `score: choice` or "
        "`score: options`; false asks the question alone, for the likelihood of the options' texts (`score: options`)",
    )


class Shuffled(Listed):
    """How a question is asked, in a set whose file has the right option in a place of its own."""

    seed: int = Field(0, description="of the order of a question's options")


def shuffled(seed: int, question: str, options: Sequence[str]) -> list[str]:
    """The options in an order that depends on the seed and the question, and not on the order of either file."""
    order = sorted(options)
    Random(f"{seed} {question}").shuffle(order)
    return order


def row(settings: Listed, question: str, options: Sequence[str], answer: int) -> dict[str, Any]:
    """`messages` and `reference` of a question whose right option has the index `answer`."""
    if not settings.listed:
        return {
            "messages": [{"role": "user", "content": question}],
            "reference": {"options": list(options), "answer": answer},
        }
    letters = list(LETTERS[: len(options)])
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, options, strict=True))
    return {
        "messages": [{"role": "user", "content": f"{question}\n\n{lines}\n\n{DEMAND}"}],
        "reference": {"options": letters, "answer": answer, "names": list(options)},
    }
