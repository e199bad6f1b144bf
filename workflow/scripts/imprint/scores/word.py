r"""Is the word right? The answer is the last word in the last \boxed{}, else the first word after the last "answer is"
or "answer:", else the last word of the response. Small and capital letters are not told apart.

Example: 'The last letters are y, a, j and o, so the answer is "yajo".' gives yajo.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator

from imprint.runtime.plugins import Strict
from imprint.scores import Reads, Verdict
from imprint.scoring.forms import boxed

ASKS = "generate"
VERSION = "1"
PRIMARY = "accuracy"
METRICS = {"accuracy": 1}

TAIL = 20_000  # characters at the end of a response that are read
WORD = re.compile(r"\w+")
ANNOUNCED = re.compile(r"\banswer(?: is|:)\W{0,9}(\w+)", re.IGNORECASE)


class Settings(Strict):
    """Nothing to set."""


class Reference(Reads):
    answer: str = Field(description="the word, such as yajo")

    @field_validator("answer")
    @classmethod
    def _is_a_word(cls, value: str) -> str:
        if not WORD.fullmatch(value):
            raise ValueError("write one word, such as 'yajo'")
        return value


def word(response: str) -> str | None:
    """The word that a response answers with, in small letters; None for a response without a word."""
    text = response[-TAIL:]
    inside = boxed(text)
    announced = ANNOUNCED.findall(text) if inside is None else []
    words = announced or WORD.findall(text if inside is None else inside)
    return str(words[-1]).casefold() if words else None


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """1 if the answer's word is the reference's, else 0; a response without a word is wrong and unparsed."""
    answer = word(response)
    return [Verdict("accuracy", float(answer == row["reference"]["answer"].casefold()), unparsed=answer is None)]
