r"""Which option does an answer name? Rules read JSON first, then a letter, then the option's text or object, and never
guess. If there is a \boxed{...}, only the last one is read.

Examples with three options: '{"answer": "B"}', 'The answer is (b).', '\boxed{B}' and 'B. a mop' choose the second; 'E',
'A or B' and 'I cannot tell' are unparsed. An answer that names two options is unparsed.
"""

from __future__ import annotations

import json
import re
from typing import Any

from imprint.runtime.plugins import Strict
from imprint.scores import Verdict
from imprint.scoring import option_sets
from imprint.scoring.forms import boxed
from imprint.scoring.option_sets import LETTERS

ASKS = "generate"
VERSION = "3"
PRIMARY = "accuracy"
METRICS = option_sets.METRICS
Reference = option_sets.Reference

OBJECTS = 20  # opening braces that are tried as JSON; bounds the time on a response full of braces
LONGEST = 100_000  # characters of a response that are read
# A letter by itself ("b", "(B)", "B."), at the start of a line ("B. a mop", "(B) a mop"), or announced ("answer: B").
# "a" and "I" are also words, so the end of a sentence or a bracket must follow them if they are announced.
ALONE = re.compile(r"\W{0,9}([A-Za-z])\W{0,9}")
LISTED = re.compile(r"^[ \t*]{0,9}(?:\(([A-Za-z])\)|([A-Za-z])[).:](?=\s|$|\*))", re.MULTILINE)
BRACKETED = re.compile(r"(?<!\w)\(([A-Za-z])\)")
ANNOUNCED = re.compile(
    r"\b(?:answer|option|choice|choose|letter)(?: is| would be)?[ :*\"'(]{1,9}"
    r"(?:([B-HJ-Z])(?![\w'])|([A-Za-z])(?=[\"'*)]{0,3}(?:[.,;:!?)\n]|$)))",
    re.IGNORECASE | re.MULTILINE,
)
# A letter or text in a font of its own inside a formula.
STYLED = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf)\s?\{([^{}]*)\}")


class Settings(Strict):
    """Nothing to set."""


class _Unclear(Exception):
    """An answer names a letter or text that no option has, or several options."""


def _letter(text: str, size: int) -> int:
    place = LETTERS.find(text.upper())
    if not 0 <= place < size:
        raise _Unclear
    return place


def _one(options: list[int]) -> int | None:
    """The option that all mentions name; None if they name several options or there is no mention."""
    return options[0] if options and len(set(options)) == 1 else None


def _by_json(text: str, reference: dict[str, Any]) -> int | None:
    decoder = json.JSONDecoder()
    options: list[int] = []
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
                    raise _Unclear
                options.append(option)
    if len(set(options)) > 1:
        raise _Unclear
    return _one(options)


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
            raise _Unclear
    return None


def _by_name(text: str, reference: dict[str, Any]) -> int | None:
    """The one option whose text is in the answer as complete words; if no text is, the one whose object is. A name
    inside a longer name ("pen" in "marker pen") does not count."""
    words = " ".join(re.findall(r"\w+", text.casefold()))
    for key in ("options", "names"):
        names = [" ".join(re.findall(r"\w+", str(name).casefold())) for name in reference.get(key) or []]
        # Options that are their letters have been looked for: as words, "a" and "i" mean something else.
        names = ["" if name == LETTERS[place].casefold() else name for place, name in enumerate(names)]
        unmatched = f" {words} "
        places = []
        for place in sorted(range(len(names)), key=lambda n: -len(names[n])):
            if names[place] and f" {names[place]} " in unmatched:
                places.append(place)
                if names.count(names[place]) == 1:
                    unmatched = unmatched.replace(f" {names[place]} ", " | ")
        if places:
            return _one(places)
    return None


def chosen(text: str, reference: dict[str, Any]) -> int | None:
    """The index of the option that an answer names; None if it names none or several."""
    text = text[:LONGEST]
    if inside := boxed(text):
        text = STYLED.sub(r"\1", inside)
    try:
        for parse in (_by_json, _by_letter, _by_name):
            option = parse(text, reference)
            if option is not None:
                return option
    except _Unclear:
        pass
    return None


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """Verdicts on the option that the answer names; an answer without an option is wrong and unparsed."""
    return option_sets.verdicts(row["reference"], chosen(response, row["reference"]))
