"""Verdicts on a choice among options, the same for options scored by log-likelihood and for answers that name one.

A reference is {"options": [text], "answer": index, "penalty": [number] or None, "bad": [bool] or None}. Example: of
three options with penalties 50, 80 and 500, choosing the second is wrong, not bad, and has a regret of 30.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from imprint.scores import Reads, Verdict

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# chance is the accuracy of a blind guess; picked, by place, shows whether a model prefers a place.
METRICS = {"accuracy": 1, "chance": 0, "bad_rate": -1, "regret": -1, "picked": 0}


class Reference(Reads):
    """A question with options."""

    options: list[str] = Field(min_length=2, max_length=len(LETTERS), description="the options, as texts or letters")
    answer: int = Field(description="the index of the right option, from 0")
    names: list[str] | None = Field(None, description="the texts of options that are letters")
    penalty: list[float] | None = Field(None, description="what choosing an option costs, for `regret`")
    bad: list[bool] | None = Field(None, description="whether an option is a bad choice, for `bad_rate`")

    @field_validator("answer")
    @classmethod
    def _is_an_option(cls, value: int, info: ValidationInfo) -> int:
        size = len(info.data.get("options", []))
        if not 0 <= value < size:
            raise ValueError(f"write the index of an option, 0 to {size - 1}")
        return value

    @field_validator("names", "penalty", "bad")
    @classmethod
    def _one_an_option(cls, value: list[Any] | None, info: ValidationInfo) -> list[Any] | None:
        size = len(info.data.get("options", []))
        if value is not None and len(value) != size:
            raise ValueError(f"write a list of {size}, one an option")
        return value


def verdicts(reference: dict[str, Any], chosen: int | None) -> list[Verdict]:
    """Verdicts on the choice of an option by index; None is an answer without a choice, which is unparsed.

    An unparsed answer is wrong and not bad, and has no regret. `bad_rate` and `regret` are only for a reference that
    has `bad` and `penalty`. The regret is the choice's penalty above the least one."""
    unparsed = chosen is None
    size = len(reference["options"])
    verdicts = [
        Verdict("accuracy", float(chosen == reference["answer"]), unparsed=unparsed),
        Verdict("chance", 1 / size),
    ]
    bad, penalty = reference.get("bad"), reference.get("penalty")
    if bad is not None:
        verdicts.append(Verdict("bad_rate", 0.0 if chosen is None else float(bad[chosen]), unparsed=unparsed))
    if penalty is not None and chosen is not None:
        verdicts.append(Verdict("regret", float(penalty[chosen] - min(penalty))))
    verdicts += [Verdict("picked", float(place == chosen), place, LETTERS[place], unparsed) for place in range(size)]
    return verdicts
