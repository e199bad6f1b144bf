"""IFEval's 25 verifiable instructions: their ids and the criteria each of them needs.

Paper: Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models; reference scorer:
google-research/google-research, instruction_following_eval. There a missing or out-of-range criterion is drawn at
random when a response is scored, so that a verdict depends on luck; in this package it is an error.

    check("length_constraints:number_words", {"relation": "at least", "num_words": 30, "letter": None}, "row 1")
    -> {"relation": "at least", "num_words": 30}
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from imprint.runtime.errors import ImprintError

RELATIONS = ("less than", "at least")
_CODES = "ar bg bn de en es fa fi fr gu he hi it ja kn ko ml mr ne pa pl pt ru sw ta te th uk ur vi"
LANGUAGES = tuple(_CODES.split())

# id -> {criterion: kind}; the kinds are the keys of _KINDS.
INSTRUCTIONS: dict[str, dict[str, str]] = {
    "change_case:capital_word_frequency": {"capital_frequency": "count", "capital_relation": "relation"},
    "change_case:english_capital": {},
    "change_case:english_lowercase": {},
    "combination:repeat_prompt": {"prompt_to_repeat": "text"},
    "combination:two_responses": {},
    "detectable_content:number_placeholders": {"num_placeholders": "count"},
    "detectable_content:postscript": {"postscript_marker": "pattern"},
    "detectable_format:constrained_response": {},
    "detectable_format:json_format": {},
    "detectable_format:multiple_sections": {"section_spliter": "pattern", "num_sections": "count"},
    "detectable_format:number_bullet_lists": {"num_bullets": "count"},
    "detectable_format:number_highlighted_sections": {"num_highlights": "count"},
    "detectable_format:title": {},
    "keywords:existence": {"keywords": "patterns"},
    "keywords:forbidden_words": {"forbidden_words": "patterns"},
    "keywords:frequency": {"keyword": "pattern", "frequency": "count", "relation": "relation"},
    "keywords:letter_frequency": {"letter": "letter", "let_frequency": "count", "let_relation": "relation"},
    "language:response_language": {"language": "language"},
    "length_constraints:nth_paragraph_first_word": {
        "num_paragraphs": "count",
        "nth_paragraph": "position",
        "first_word": "text",
    },
    "length_constraints:number_paragraphs": {"num_paragraphs": "count"},
    "length_constraints:number_sentences": {"num_sentences": "count", "relation": "relation"},
    "length_constraints:number_words": {"num_words": "count", "relation": "relation"},
    "punctuation:no_comma": {},
    "startend:end_checker": {"end_phrase": "text"},
    "startend:quotation": {},
}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _pattern(value: Any) -> bool:
    if not _text(value):
        return False
    try:
        re.compile(value)
    except re.error:
        return False
    return True


# kind -> (what is accepted, in words, and the test)
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "count": ("a whole number of at least 0", lambda value: _number(value) and value >= 0),
    "position": ("a whole number of at least 1", lambda value: _number(value) and value >= 1),
    "relation": (" or ".join(f"'{relation}'" for relation in RELATIONS), lambda value: value in RELATIONS),
    "text": ("a text that is not blank", _text),
    "pattern": ("a text that is a valid regular expression (the scorer searches it as one)", _pattern),
    "patterns": (
        "a list of at least one text, each a valid regular expression (the scorer searches them as such)",
        lambda value: isinstance(value, list) and bool(value) and all(map(_pattern, value)),
    ),
    "letter": ("one character", lambda value: _text(value) and len(value) == 1),
    "language": (f"one of {', '.join(LANGUAGES)}", lambda value: value in LANGUAGES),
}


def check(instruction: str, kwargs: Any, where: str) -> dict[str, Any]:
    """The criteria of one instruction without those that are None. Raises ImprintError, naming `where`, when the id
    is unknown or a criterion is missing, unknown, or one for which the reference scorer would draw a random value."""
    if instruction not in INSTRUCTIONS:
        raise ImprintError(
            f"{where}: unknown instruction '{instruction}'; IFEval has the 25 ids {', '.join(sorted(INSTRUCTIONS))}"
        )
    if not isinstance(kwargs, dict):
        raise ImprintError(f"{where}: the kwargs of '{instruction}' are {kwargs!r}; write an object such as {{}}")
    kinds = INSTRUCTIONS[instruction]
    criteria = {key: value for key, value in kwargs.items() if value is not None}
    if criteria.keys() != kinds.keys():
        raise ImprintError(
            f"{where}: '{instruction}' has the kwargs {sorted(criteria) or 'none'}, but needs exactly "
            f"{sorted(kinds) or 'none'}"
        )
    for key, value in criteria.items():
        words, accepts = _KINDS[kinds[key]]
        if not accepts(value):
            raise ImprintError(f"{where}: '{instruction}' has {key}={value!r}; write {words}")
    if "nth_paragraph" in criteria and criteria["nth_paragraph"] > criteria["num_paragraphs"]:
        raise ImprintError(
            f"{where}: '{instruction}' asks for paragraph {criteria['nth_paragraph']} of "
            f"{criteria['num_paragraphs']}; "
            "nth_paragraph must not be larger than num_paragraphs"
        )
    return criteria


def check_all(ids: Any, kwargs: Any, where: str) -> list[tuple[str, dict[str, Any]]]:
    """The (id, criteria) pairs of one prompt, in order, with repeated ids. Raises like `check`."""
    if not isinstance(ids, list) or not isinstance(kwargs, list) or not ids or len(ids) != len(kwargs):
        raise ImprintError(
            f"{where}: instruction_id_list and kwargs must be two lists of one length, at least 1; "
            f"they are {ids!r} and {kwargs!r}"
        )
    return [(str(name), check(name, criteria, where)) for name, criteria in zip(ids, kwargs, strict=True)]
