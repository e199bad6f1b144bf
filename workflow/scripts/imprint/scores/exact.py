"""Is the answer the reference, word for word? The answer is the response's first line without spaces and a full stop at
its ends. Small and capital letters are not told apart, unless `case` says so.

"Vaduz.\n\nQ: ..." gives vaduz, equal to the reference "Vaduz".
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.scores import Reads, Verdict

ASKS = "generate"
VERSION = "1"
PRIMARY = "accuracy"
METRICS = {"accuracy": 1}


class Settings(Strict):
    case: bool = Field(False, description="tell small and capital letters apart, for tasks about them")


class Reference(Reads):
    answer: str = Field(min_length=1, description="the answer, as text")


def answer(text: str, case: bool) -> str:
    """The first line of a text, as it is compared."""
    line = text.strip().split("\n", 1)[0].strip().removesuffix(".").strip()
    return line if case else line.casefold()


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """1 if the answer is the reference's, else 0; an empty answer is wrong and unparsed. Raises ImprintError for a
    reference that is no text."""
    gold = row["reference"].get("answer")
    if not isinstance(gold, str) or not gold.strip():
        raise ImprintError(f"reference.answer: found {gold!r:.80}; write a text, such as 'Vaduz'")
    said = answer(response, settings.case)
    return [Verdict("accuracy", float(said == answer(gold, settings.case)), unparsed=not said)]
