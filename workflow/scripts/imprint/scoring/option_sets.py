"""Verdicts on a choice among options, the same for options scored by log-likelihood and for answers that name one.

A reference is {"options": [text], "answer": index, "penalty": [number] or None, "bad": [bool] or None}. Example: of
three options with penalties 50, 80 and 500, choosing the second is wrong, not bad, and has a regret of 30.
"""

from __future__ import annotations

from typing import Any

from imprint.runtime.errors import ImprintError
from imprint.scores import Verdict

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# chance is the accuracy of a blind guess; picked, by place, shows whether a model prefers a place.
METRICS = {"accuracy": 1, "chance": 0, "bad_rate": -1, "regret": -1, "picked": 0}


def checked(value: Any) -> dict[str, Any]:
    """A reference with at least two options, whose lists have one entry for each. Raises ImprintError for any other."""
    reference: dict[str, Any] = value if isinstance(value, dict) else {}
    options = reference.get("options")
    if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
        raise ImprintError(f'reference: found {value!r:.99}; write {{"options": [2 to 26 texts], "answer": index}}')
    answer = reference.get("answer")
    if type(answer) is not int or not 0 <= answer < len(options):
        raise ImprintError(f"reference.answer: found {answer!r}; write the index of an option, 0 to {len(options) - 1}")
    for key in ("penalty", "bad", "names"):
        values = reference.get(key)
        if values is not None and (not isinstance(values, list) or len(values) != len(options)):
            raise ImprintError(f"reference.{key}: found {values!r:.80}; write a list of {len(options)}, one an option")
    return reference


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
