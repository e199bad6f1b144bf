"""Is the number right? GSM8K's rule: the number after the last "####", or else the last number of the answer.

Example: "She makes 9 * $2 = $18." gives 18, equal to the reference "18" and to "18.00".
"""

from __future__ import annotations

import re
from collections import deque
from decimal import Decimal
from typing import Any

from imprint.errors import ImprintError
from imprint.plugins import Strict
from imprint.scores import Verdict

ASKS = "generate"
VERSION = "1"
PRIMARY = "accuracy"
METRICS = {"accuracy": 1}

READ = 100_000  # characters at the end of an answer that are looked at: bounds the time on endless ones
LONGEST = 400  # characters of one number; a longer run of digits is no answer
# A minus is a sign only where no number, word or bracket ends before it: "10-5" ends in 5, "is -5" in -5.
NUMBER = re.compile(r"(?:(?<![\w.)\]])([-\u2212]))?\$?((?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)")
MARK = "####"


class Settings(Strict):
    """Nothing to set."""


def number(text: str) -> Decimal | None:
    """The number that an answer ends in, or None. Thousands commas, a leading $, a sign and decimals are read; a full
    stop at the end is none of it. What follows the last "####" counts alone if a number is in it (its first one)."""
    text = text[-READ:]
    _, mark, after = text.rpartition(MARK)
    if mark and (match := NUMBER.search(after)):
        return _value(match)
    found = deque(NUMBER.finditer(text), maxlen=1)
    return _value(found[0]) if found else None


def _value(match: re.Match[str]) -> Decimal | None:
    digits = match[2].replace(",", "")
    if len(digits) > LONGEST:
        return None
    value = Decimal(digits)
    return value.copy_negate() if match[1] else value


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """1 if the answer's number equals the reference's exactly; an answer without a number is wrong and unparsed."""
    gold = row["reference"].get("answer")
    wanted = number(str(gold))
    if wanted is None:
        raise ImprintError(f"reference.answer: found {gold!r:.80}; write a number such as '18'")
    found = number(response)
    return [Verdict("accuracy", float(found == wanted), unparsed=found is None)]
