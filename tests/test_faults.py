"""Where a response breaks an instruction."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.instructions import INSTRUCTIONS
from imprint.instructions.faults import MOST, faults
from imprint.scores import ifeval


@pytest.mark.parametrize(
    ("instruction", "kwargs", "text", "marked"),
    [
        ("punctuation:no_comma", {}, "Yes, no, yes.", [",", ","]),
        ("change_case:english_lowercase", {}, "an Apple in NY", ["A", "NY"]),
        ("change_case:english_capital", {}, "AN apple IN Ny", ["apple", "y"]),
        ("keywords:forbidden_words", {"forbidden_words": ["tea", "a.b"]}, "Tea, steam, a.b and axb", ["Tea", "a.b"]),
        ("keywords:frequency", {"keyword": "tea", "relation": "less than"}, "tea and Tea", ["tea", "Tea"]),
        ("keywords:frequency", {"keyword": "tea", "relation": "at least"}, "tea and Tea", []),
        ("keywords:letter_frequency", {"letter": "t", "let_relation": "less than"}, "tea Tip", ["t", "T"]),
        ("startend:quotation", {}, " so it is ", ["s", "s"]),
        ("startend:quotation", {}, '"so it is', ["s"]),
        ("startend:quotation", {}, "  ", []),
        ("detectable_format:title", {}, "no title", []),
    ],
)
def test_places(instruction: str, kwargs: dict[str, Any], text: str, marked: list[str]) -> None:
    assert [text[start:end] for start, end in faults(instruction, kwargs, text)] == marked


def test_they_are_few() -> None:
    assert len(faults("punctuation:no_comma", {}, "," * 10_000)) == MOST


def test_a_score_names_them_by_item() -> None:
    ids = ["detectable_format:title", "punctuation:no_comma"]
    row = {"reference": {"instruction_id_list": ids, "kwargs": [{}, {}]}}
    assert ifeval.faults(row, 0, "a, b") == []
    assert ifeval.faults(row, 1, "a, b") == [(1, 2)]


WORDS = {
    "forbidden_words": ["(a+)+$", "["],
    "keyword": "(",
    "relation": "less than",
    "letter": "*",
    "let_relation": "less than",
}


@given(st.sampled_from(sorted(INSTRUCTIONS)), st.text())
def test_places_lie_in_the_text_whatever_is_forbidden(instruction: str, text: str) -> None:
    places = faults(instruction, WORDS, text)
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert places == sorted(places)
