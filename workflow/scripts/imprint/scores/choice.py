r"""Which option does an answer name? JSON first, then a letter, then the option's text or object; never a guess. Where
there is a \boxed{...}, the last one alone is the answer.

Examples with three options: '{"answer": "B"}', 'The answer is (b).', '\boxed{B}' and 'B. a mop' choose the second; 'E',
'A or B' and 'I cannot tell' are unparsed. An answer that names two options names none.
"""

from __future__ import annotations

import json
import re
from typing import Any

from imprint.option_sets import LETTERS, METRICS, checked, verdicts
from imprint.plugins import Strict
from imprint.scores import Verdict
from imprint.scores.math import boxed

ASKS = "generate"
VERSION = "2"
PRIMARY = "accuracy"
__all__ = ["ASKS", "METRICS", "PRIMARY", "VERSION", "Settings", "chosen", "score"]

OBJECTS = 20  # opening braces that are tried as JSON: bounds the time on a response that is full of them
LONGEST = 100_000  # characters that are read; an answer that starts later is no answer
# A letter by itself ("b", "(B)", "B."), at the start of a line ("B. a mop", "(B) a mop"), or announced ("answer: B").
# "a" and "I" are also words: announced ones must be followed by the end of the sentence or a bracket.
ALONE = re.compile(r"\W{0,9}([A-Za-z])\W{0,9}")
LISTED = re.compile(r"^[ \t*]{0,9}(?:\(([A-Za-z])\)|([A-Za-z])[).:](?=\s|$|\*))", re.MULTILINE)
BRACKETED = re.compile(r"(?<!\w)\(([A-Za-z])\)")
ANNOUNCED = re.compile(
    r"\b(?:answer|option|choice|choose|letter)(?: is| would be)?[ :*\"'(]{1,9}"
    r"(?:([B-HJ-Z])(?![\w'])|([A-Za-z])(?=[\"'*)]{0,3}(?:[.,;:!?)\n]|$)))",
    re.IGNORECASE | re.MULTILINE,
)
# A letter or text that is set in a face of its own inside a formula.
STYLED = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf)\s?\{([^{}]*)\}")


class Settings(Strict):
    """Nothing to set."""


class _Outside(Exception):
    """An answer names a letter that no option has."""


def _letter(text: str, size: int) -> int:
    place = LETTERS.find(text.upper())
    if not 0 <= place < size:
        raise _Outside
    return place


def _one(found: list[int]) -> int | None:
    """The option that all of the mentions name, if it is one."""
    return found[0] if found and len(set(found)) == 1 else None


def _by_json(text: str, reference: dict[str, Any]) -> int | None:
    decoder = json.JSONDecoder()
    found: list[int] = []
    place = -1
    for _ in range(OBJECTS):
        place = text.find("{", place + 1)
        if place < 0:
            break
        try:
            value, _end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        for key, answer in value.items():
            if key.strip().lower() == "answer" and isinstance(answer, str):
                option = _by_letter(answer, reference)
                option = _by_name(answer, reference) if option is None else option
                if option is None:
                    raise _Outside
                found.append(option)
    if len(set(found)) > 1:
        raise _Outside
    return _one(found)


def _by_letter(text: str, reference: dict[str, Any]) -> int | None:
    size = len(reference["options"])
    if match := ALONE.fullmatch(text.strip()):
        return _letter(match[1], size)
    for pattern in (ANNOUNCED, LISTED):
        letters = {(match[1] or match[2]).upper() for match in pattern.finditer(text)}
        if pattern is LISTED:
            letters |= {match[1].upper() for match in BRACKETED.finditer(text)}
        if len(letters) == 1:
            return _letter(letters.pop(), size)
        if letters:
            raise _Outside
    return None


def _by_name(text: str, reference: dict[str, Any]) -> int | None:
    """The one option whose text, or else whose object, stands in the answer as whole words. A name that is part of a
    longer one that stands there too ("pen" in "marker pen") does not count."""
    words = " ".join(re.findall(r"\w+", text.casefold()))
    for key in ("options", "names"):
        names = [" ".join(re.findall(r"\w+", str(name).casefold())) for name in reference.get(key) or []]
        left = f" {words} "
        found = []
        for place in sorted(range(len(names)), key=lambda n: -len(names[n])):
            if names[place] and f" {names[place]} " in left:
                found.append(place)
                if names.count(names[place]) == 1:
                    left = left.replace(f" {names[place]} ", " | ")
        if found:
            return _one(found)
    return None


def chosen(text: str, reference: dict[str, Any]) -> int | None:
    """The index of the option that an answer names, or None."""
    text = text[:LONGEST]
    if inside := boxed(text):
        text = STYLED.sub(r"\1", inside)
    try:
        for parse in (_by_json, _by_letter, _by_name):
            option = parse(text, reference)
            if option is not None:
                return option
    except _Outside:
        pass
    return None


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """Verdicts of the option that the answer names; an answer that names none is wrong and unparsed."""
    reference = checked(row["reference"])
    return verdicts(reference, chosen(response, reference))
