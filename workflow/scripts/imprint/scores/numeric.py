"""Is the number right? By GSM8K's rule, the answer is the number after the last "####", or else the last number.

Example: "She makes 9 * $2 = $18." gives 18, equal to the reference "18" and to "18.00".
"""

from __future__ import annotations

import re
from collections import deque
from decimal import Decimal
from typing import Any

from pydantic import Field, field_validator

from imprint.runtime.plugins import Strict
from imprint.scores import Reads, Verdict

ASKS = "generate"
VERSION = "1"
PRIMARY = "accuracy"
METRICS = {"accuracy": 1}

TAIL = 100_000  # characters at the end of an answer that are read; bounds the time
LONGEST = 400  # digits; a longer number is not an answer
# A minus is a sign unless a number, word or bracket ends right before it: "10-5" ends in 5, "is -5" in -5.
NUMBER = re.compile(r"(?:(?<![\w.)\]])([-\u2212]))?\$?((?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)")
MARK = "####"


class Settings(Strict):
    """Nothing to set."""


class Reference(Reads):
    answer: str | int | float = Field(description='the number, such as "18", or a text that ends in it')
    options: None = Field(None, description="absent: beside options, an answer is the index of one")

    @field_validator("answer")
    @classmethod
    def _has_a_number(cls, value: str | int | float) -> str | int | float:
        if number(str(value)) is None:
            raise ValueError("write a number, such as '18'")
        return value


def number(text: str) -> Decimal | None:
    """The last number of an answer, or the first number after the last "####" if there is one; None without a number.
    Thousands commas, a leading $, a sign and decimals are read. A full stop at the end is not part of the number."""
    text = text[-TAIL:]
    _, mark, after = text.rpartition(MARK)
    if mark and (match := NUMBER.search(after)):
        return _value(match)
    last = deque(NUMBER.finditer(text), maxlen=1)
    return _value(last[0]) if last else None


def _value(match: re.Match[str]) -> Decimal | None:
    digits = match[2].replace(",", "")
    if len(digits) > LONGEST:
        return None
    value = Decimal(digits)
    return value.copy_negate() if match[1] else value


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """1 if the answer's number equals the reference's exactly, else 0; an answer without a number is wrong and
    unparsed."""
    answer = number(response)
    expected = number(str(row["reference"]["answer"]))
    return [Verdict("accuracy", float(answer == expected), unparsed=answer is None)]
