"""What a choice among options is worth: one rule for options scored by log-likelihood and for answers that name one.

A reference is {"options": [text], "answer": index, "penalty": [number] or None, "bad": [bool] or None}. Example: of
three options with penalties 50, 80 and 500, choosing the second is wrong, not bad, and has a regret of 30.
"""

from __future__ import annotations

from typing import Any

from imprint.errors import ImprintError
from imprint.scores import Verdict

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# bad_rate, regret: a smaller one is better. chance is the rate of a blind guess; picked shows a liking for a place.
METRICS = {"accuracy": 1, "chance": 0, "bad_rate": -1, "regret": -1, "picked": 0}


def checked(given: Any) -> dict[str, Any]:
    """A reference whose lists have one entry an option; anything else is an error that says what is missing."""
    reference: dict[str, Any] = given if isinstance(given, dict) else {}
    options = reference.get("options")
    if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
        raise ImprintError(f'reference: found {given!r:.99}; write {{"options": [2 to 26 texts], "answer": index}}')
    answer = reference.get("answer")
    if type(answer) is not int or not 0 <= answer < len(options):
        raise ImprintError(f"reference.answer: found {answer!r}; write the index of an option, 0 to {len(options) - 1}")
    for key in ("penalty", "bad", "names"):
        given = reference.get(key)
        if given is not None and (not isinstance(given, list) or len(given) != len(options)):
            raise ImprintError(f"reference.{key}: found {given!r:.80}; write a list of {len(options)}, one an option")
    return reference


def verdicts(reference: dict[str, Any], chosen: int | None) -> list[Verdict]:
    """The metrics of a choice (None: an answer that names none). An unparsed answer is wrong and has no regret; it
    counts as not bad, and n_unparsed says how many there were. `bad_rate` and `regret` stand only where the reference
    has `bad` and `penalty`."""
    lost = chosen is None
    size = len(reference["options"])
    found = [
        Verdict("accuracy", float(chosen == reference["answer"]), unparsed=lost),
        Verdict("chance", 1 / size),
    ]
    bad, penalty = reference.get("bad"), reference.get("penalty")
    if bad is not None:
        found.append(Verdict("bad_rate", 0.0 if chosen is None else float(bad[chosen]), unparsed=lost))
    if penalty is not None and chosen is not None:
        found.append(Verdict("regret", float(penalty[chosen] - min(penalty))))
    found += [Verdict("picked", float(place == chosen), place, LETTERS[place], lost) for place in range(size)]
    return found
