"""Verdicts on a choice among options, the same for options scored by log-likelihood and for answers that name one.

A reference is {"options": [text], "answer": index, "penalty": [number] or None, "bad": [bool] or None}. Example: of
three options with penalties 50, 80 and 500, choosing the second is wrong, not bad, and has a regret of 30.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

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

    @model_validator(mode="after")
    def _one_an_option(self) -> Reference:
        size = len(self.options)
        if not 0 <= self.answer < size:
            raise ValueError(f"answer: found {self.answer}; write the index of an option, 0 to {size - 1}")
        for key, values in (("names", self.names), ("penalty", self.penalty), ("bad", self.bad)):
            if values is not None and len(values) != size:
                raise ValueError(f"{key}: found {values!r:.80}; write a list of {size}, one an option")
        return self


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
