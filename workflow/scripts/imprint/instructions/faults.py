"""Where a text breaks an instruction, for instructions that are broken at a place: a comma where none may be. What is
missing, such as a title or a tenth sentence, has no place.

Words are searched for as they are written. The checkers take them as patterns; patterns of foreign data never run here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

MOST = 50
"""Places of an instruction that are named."""

Span = tuple[int, int]


def faults(instruction: str, kwargs: dict[str, Any], text: str) -> list[Span]:
    """The first MOST places, as (start, end) in characters, at which a text that breaks the instruction does so."""
    find = _FINDERS.get(instruction)
    return list(islice(find(kwargs, text), MOST)) if find else []


def _spans(pattern: str, text: str, flags: int = 0) -> Iterator[Span]:
    return (match.span() for match in re.finditer(pattern, text, flags))


def _forbidden(kwargs: dict[str, Any], text: str) -> Iterator[Span]:
    words = "|".join(re.escape(str(word)) for word in kwargs["forbidden_words"])
    return _spans(rf"\b(?:{words})\b", text, re.IGNORECASE)


def _too_many(word: str, relation: str | None, text: str) -> Iterator[Span]:
    """The places of a word of which there may only be few."""
    return _spans(re.escape(word), text, re.IGNORECASE) if relation == "less than" else iter(())


def _unquoted(kwargs: dict[str, Any], text: str) -> Iterator[Span]:
    stripped = text.strip()
    start, end = text.find(stripped), text.find(stripped) + len(stripped)
    if stripped and not stripped.startswith('"'):
        yield start, start + 1
    if stripped and not stripped.endswith('"'):
        yield end - 1, end


_FINDERS: dict[str, Callable[[dict[str, Any], str], Iterator[Span]]] = {
    "punctuation:no_comma": lambda kwargs, text: _spans(",", text),
    "change_case:english_lowercase": lambda kwargs, text: _spans(r"[A-Z]+", text),
    "change_case:english_capital": lambda kwargs, text: _spans(r"[a-z]+", text),
    "keywords:forbidden_words": _forbidden,
    "keywords:frequency": lambda kwargs, text: _too_many(str(kwargs["keyword"]), kwargs.get("relation"), text),
    "keywords:letter_frequency": lambda kwargs, text: _too_many(
        str(kwargs["letter"]), kwargs.get("let_relation"), text
    ),
    "startend:quotation": _unquoted,
}
