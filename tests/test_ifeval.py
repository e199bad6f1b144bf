"""The IFEval scorer and the reader of its prompts: a pass and a fail per instruction, loose variants, edge cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint import instructions
from imprint.datasets import ifeval as reader
from imprint.instructions import checkers, punkt
from imprint.runtime import needs
from imprint.runtime.errors import ImprintError
from imprint.scores import LONGEST, ifeval

S = ifeval.Settings()
KEYWORDS = "keywords:existence"
COMMA = "punctuation:no_comma"
SENTENCES = "length_constraints:number_sentences"
ENGLISH = "this is a plain english sentence about the weather and the long road to the sea"
GERMAN = "Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter und den langen Weg zum Meer."
PROMPT = "Name a fruit."

# (id, kwargs, a response that follows, one that does not)
CASES = [
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "GO to NASA",
        "GO",
    ),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}, "GO", "GO AWAY"),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH),
    ("change_case:english_lowercase", {}, ENGLISH, ENGLISH.capitalize()),
    ("combination:repeat_prompt", {"prompt_to_repeat": PROMPT}, "name a fruit. A pear.", "A pear. Name a fruit."),
    ("combination:two_responses", {}, "One.\n******\nTwo.", "One.\n******\nOne."),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b]", "[a and b]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Yes.\nP. S. No.", "Yes. PS No."),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Yes.\nP.P.S. No.", "Yes.\nP.S. No."),
    ("detectable_content:postscript", {"postscript_marker": "Note:"}, "Yes.\nnote: no", "Yes.\nNotes"),
    ("detectable_format:constrained_response", {}, "Well. My answer is maybe.", "Maybe."),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{'a': 1}"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Day", "num_sections": 2},
        "Day 1 a Day 2 b",
        "Day 1 a",
    ),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "Look:\n* a\n - b", "* a\n* b\n* c"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a* and * *"),
    ("detectable_format:title", {}, "<<Pears>>\nGood.", "<< >>\nGood."),
    (KEYWORDS, {"keywords": ["pear", "fig"]}, "Figs and PEARS", "a fig"),
    ("keywords:forbidden_words", {"forbidden_words": ["pear"]}, "pears", "A Pear."),
    ("keywords:frequency", {"keyword": "pear", "frequency": 2, "relation": "at least"}, "pear, Pears", "a pear"),
    ("keywords:frequency", {"keyword": "pear", "frequency": 2, "relation": "less than"}, "a pear", "pear, Pears"),
    ("keywords:letter_frequency", {"letter": "E", "let_frequency": 2, "let_relation": "at least"}, "Eel", "el"),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 0, "let_relation": "at least"}, "x", None),
    ("language:response_language", {"language": "de"}, GERMAN, ENGLISH),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Now"},
        "First.\n\nnow, second.",
        "Now.\n\nThen.",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    (SENTENCES, {"num_sentences": 2, "relation": "at least"}, "It is late. We go home.", "Dr. Smith goes home."),
    (SENTENCES, {"num_sentences": 2, "relation": "less than"}, "Dr. Smith goes home.", "It is late. We go home."),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two-three", "one two"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "one two", "one two-three"),
    (COMMA, {}, "no comma", "a, b"),
    ("startend:end_checker", {"end_phrase": "The End."}, 'So. the end."', "The End. Really."),
    ("startend:quotation", {}, ' "yes" ', '"yes".'),
]


def row(*pairs: tuple[str, dict], prompt: str = PROMPT) -> dict:
    ids, kwargs = [name for name, _ in pairs], [given for _, given in pairs]
    return {"reference": {"instruction_id_list": ids, "kwargs": kwargs, "prompt": prompt}}


def values(verdicts: list, metric: str) -> list[float]:
    return [verdict.value for verdict in verdicts if verdict.metric == metric]


def test_every_instruction_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(instructions.INSTRUCTIONS)
    assert len(instructions.INSTRUCTIONS) == 25
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT
    from lm_eval.tasks.ifeval.instructions_util import LANGUAGE_CODES

    assert set(INSTRUCTION_DICT) == set(instructions.INSTRUCTIONS)
    assert set(LANGUAGE_CODES) == set(instructions.LANGUAGES)


@pytest.mark.parametrize(("name", "kwargs", "good", "bad"), CASES)
def test_pass_and_fail(name: str, kwargs: dict, good: str, bad: str | None) -> None:
    passed = ifeval.score(row((name, kwargs)), good, S)
    assert [(v.metric, v.value, v.item, v.label) for v in passed] == [
        ("prompt_strict", 1.0, None, None),
        ("prompt_loose", 1.0, None, None),
        ("instruction_strict", 1.0, 0, name),
        ("instruction_loose", 1.0, 0, name),
    ]
    if bad is not None:
        assert values(ifeval.score(row((name, kwargs)), bad, S), "instruction_strict") == [0.0]


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_blank_follows_nothing(blank: str) -> None:
    for name, kwargs, _, _ in CASES:
        assert {v.value for v in ifeval.score(row((name, kwargs)), blank, S)} == {0.0}


def test_repeated_ids_are_judged_each_with_its_own_criteria() -> None:
    verdicts = ifeval.score(row((KEYWORDS, {"keywords": ["a"]}), (KEYWORDS, {"keywords": ["z"]})), "a", S)
    assert values(verdicts, "instruction_strict") == [1.0, 0.0]
    assert values(verdicts, "prompt_loose") == [0.0]
    assert [v.item for v in verdicts] == [None, None, 0, 0, 1, 1]


# Each response holds the wanted text as exactly one of the eight variants.
@pytest.mark.parametrize(
    "response",
    ["first\nx\nlast", "fi*rst\nx\nlast", "top\nfirst\nx\nlast", "first\nx\nlast\nend", "top\nfirst\nx\nlast\nend",
     "top\n*first\nx\nlast", "first*\nx\nlast\nend", "top\nfirst\n*x\nlast\nend"],
)  # fmt: skip
def test_each_loose_variant_can_be_the_only_one(response: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Exactly:
        def check_following(self, value: str) -> bool:
            seen.append(value)
            return value == "first\nx\nlast"

    monkeypatch.setattr(checkers, "checker", lambda *_: Exactly())
    strict, loose = ifeval.follows(COMMA, {}, ifeval.variants(response))
    assert loose
    assert strict == (response == "first\nx\nlast")
    assert sum(value == "first\nx\nlast" for value in seen) == 1


def test_variants() -> None:
    assert ifeval.variants(" a*\n b \nc") == [" a*\n b \nc", "b \nc", "a*\n b", "b", " a\n b \nc", "a\n b"]
    assert ifeval.variants("*") == ["*"]  # the other variants are blank, and a blank variant passes nothing


def test_loose_instructions_may_pass_on_different_variants() -> None:
    pairs = (COMMA, {}), (KEYWORDS, {"keywords": ["well"]})
    verdicts = ifeval.score(row(*pairs), "Well, yes.\nYes.", S)
    assert values(verdicts, "instruction_strict") == [0.0, 1.0]
    assert values(verdicts, "prompt_loose") == [1.0]


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from('aB.*\n,<>[]"- P!')), max_size=60))
def test_loose_is_never_below_strict(text: str) -> None:
    verdicts = ifeval.score(row(*((name, kwargs) for name, kwargs, _, _ in CASES)), text, S)
    pairs = zip(values(verdicts, "instruction_strict"), values(verdicts, "instruction_loose"), strict=True)
    assert all(loose >= strict for strict, loose in pairs)
    assert values(verdicts, "prompt_loose") >= values(verdicts, "prompt_strict")
    if not text.strip():
        assert not any(verdict.value for verdict in verdicts)


def test_instruction_level_pools_over_prompts() -> None:
    passed, failed = (COMMA, {}), (KEYWORDS, {"keywords": ["absent"]})
    prompts = [row(passed, passed), row(passed, passed, passed, failed), row(failed)]
    each = [values(ifeval.score(item, "yes", S), "instruction_strict") for item in prompts]
    pooled = [value for prompt in each for value in prompt]
    assert sum(pooled) / len(pooled) == 5 / 7
    assert sum(sum(prompt) / len(prompt) for prompt in each) / 3 == pytest.approx(0.583, abs=1e-3)


@pytest.mark.parametrize(("character", "number"), [("#", 4), ("!", 6)])
def test_characters_that_are_no_letters_are_counted(character: str, number: int) -> None:
    kwargs = {"letter": character, "let_relation": "at least", "let_frequency": number}
    for times in (number - 1, number):
        verdicts = ifeval.score(row(("keywords:letter_frequency", kwargs)), f"yes {character * times} zzzzzzzz", S)
        assert values(verdicts, "instruction_strict") == [float(times == number)]


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("length_constraints:words", {}, "unknown instruction 'length_constraints:words'"),
        ("length_constraints:number_words", {"num_words": 3}, r"needs exactly \['num_words', 'relation'\]"),
        ("length_constraints:number_words", {"num_words": 3, "relation": None}, "needs exactly"),
        ("length_constraints:number_words", {"num_words": -1, "relation": "at least"}, "at least 0"),
        ("length_constraints:number_words", {"num_words": "3", "relation": "at least"}, "whole number"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at most"}, "'less than' or 'at least'"),
        (COMMA, {"letter": "a"}, "needs exactly none"),
        (COMMA, [], "write an object"),
        (
            "keywords:letter_frequency",
            {"letter": "ab", "let_relation": "at least", "let_frequency": 1},
            "one character",
        ),
        (KEYWORDS, {"keywords": []}, "at least one text"),
        (KEYWORDS, {"keywords": ["c("]}, "regular expression"),
        ("language:response_language", {"language": "xx"}, "one of ar, bg"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"},
            "paragraph 3 of 2",
        ),
    ],
)
def test_what_the_reference_scorer_would_draw_at_random_is_an_error(name: str, kwargs: dict, message: str) -> None:
    with pytest.raises(ImprintError, match=message):
        ifeval.score(row((name, kwargs)), "yes", S)


def test_broken_references_are_errors() -> None:
    assert "two lists of one length" in str(needs.problem("ifeval", {"instruction_id_list": [COMMA], "kwargs": []}))
    assert needs.problem("ifeval", {"instruction_id_list": [COMMA]}) == "reference.kwargs: missing"
    assert needs.problem("ifeval", {"instruction_id_list": [COMMA], "kwargs": [{"letter": None}]}) is None


def test_none_is_dropped_and_zero_is_kept() -> None:
    given = {"num_bullets": 0, "letter": None}
    assert instructions.check("detectable_format:number_bullet_lists", given, "here") == {"num_bullets": 0}
    verdicts = ifeval.score(row(("detectable_format:number_bullet_lists", given)), "no bullets", S)
    assert values(verdicts, "instruction_strict") == [1.0]


def test_text_without_features_counts_as_the_language_asked_for() -> None:
    assert checkers.language("12 34") is None
    assert values(ifeval.score(row(("language:response_language", {"language": "ko"})), "12 34", S), "prompt_strict")[0]


def test_deep_json_is_no_document() -> None:
    assert values(ifeval.score(row(("detectable_format:json_format", {})), "[" * 100_000, S), "prompt_loose") == [0.0]


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet="ab *-[]<>\n\t.pPsS'\"!?:,\u00a0\u2019", max_size=40))
def test_linear_checks_agree_with_the_originals(text: str) -> None:
    import nltk
    from lm_eval.tasks.ifeval import instructions as original
    from lm_eval.tasks.ifeval import instructions_util

    for number in (1, 2, 3):
        for name, made, kwargs in (
            ("detectable_format:number_bullet_lists", original.BulletListChecker, {"num_bullets": number}),
            ("detectable_content:number_placeholders", original.PlaceholderChecker, {"num_placeholders": number}),
        ):
            other = made(name)
            other.build_description(**kwargs)
            assert checkers.checker(name, kwargs).check_following(text) == other.check_following(text)
    for marker in ("P.S.", "P.P.S", "ab"):
        other = original.PostscriptChecker("p")
        other.build_description(postscript_marker=marker)
        ours = checkers.checker("detectable_content:postscript", {"postscript_marker": marker})
        assert ours.check_following(text) == other.check_following(text)
    assert checkers.has_title(text) == original.TitleChecker("t").check_following(text)
    sentences = instructions_util.count_sentences(text)
    capitals = sum(word.isupper() for word in nltk.word_tokenize(text))
    for number in range(8):
        assert checkers.at_least_sentences(text, number) == (sentences >= number)
        assert checkers.at_least_capital_words(text, number) == (capitals >= number)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["A.", "USA", "cannot", "CANnot", "don't", "DON'T", "(B)", "c,", "X:", '"Y', "\n"])))
def test_long_sentences_may_be_cut_at_blanks(words: list[str]) -> None:
    import nltk

    text = " ".join(["xx", *words, "and"] * 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkers, "_LONG", 5)
        count = sum(word.isupper() for word in nltk.word_tokenize(text))
        assert checkers.at_least_capital_words(text, count)
        assert not checkers.at_least_capital_words(text, count + 1)


def test_language_reads_no_more_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    import langdetect

    langdetect.DetectorFactory.seed = 0
    text = f"http://a.example/{'b' * 3000} ann@example.org {ENGLISH} {GERMAN} " * 60
    given: list[str] = []
    detect = langdetect.detect
    monkeypatch.setattr(langdetect, "detect", lambda part: given.append(part) or detect(part))
    assert checkers.language(text) == detect(text)
    assert len(given[0]) < len(text)


# The counts that the scorer's published verdicts rest on; nltk from 3.10 on gives others (2, 3 and 3).
@pytest.mark.parametrize(
    ("name", "kwargs", "response"),
    [
        (SENTENCES, {"num_sentences": 2, "relation": "less than"}, "She said \u201cGo home.\u201d And he went"),
        (
            "change_case:capital_word_frequency",
            {"capital_frequency": 2, "capital_relation": "less than"},
            "HOME\u2014SWEET HOme",
        ),
        (
            "length_constraints:number_words",
            {"num_words": 6, "relation": "at least"},
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902 \u0932\u093f\u0916\u093e",
        ),
    ],
)
def test_words_and_sentences_are_the_benchmark_s(name: str, kwargs: dict, response: str) -> None:
    assert values(ifeval.score(row((name, kwargs)), response, S), "prompt_strict") == [1.0]


def test_sentence_tables_are_the_package_s(tmp_path: Path) -> None:
    checkers.checker(COMMA, {})
    import punkt.data.english as english
    from nltk.tokenize.punkt import PunktTokenizer

    read = PunktTokenizer("english")._params
    assert read.abbrev_types == set(english.ABBREV_TYPES)
    assert read.collocations == set(english.COLLOCATIONS)
    assert read.sent_starters == set(english.SENT_STARTERS)
    assert dict(read.ortho_context) == dict(english.ORTHO_CONTEXT)
    # The sizes of the model that nltk distributes for English.
    sizes = read.abbrev_types, read.collocations, read.sent_starters, read.ortho_context
    assert [len(table) for table in sizes] == [156, 37, 39, 20366]


BIG = {
    "prose": "The captain of the SS Norway, Mr. Hansen, went home. It was late! Was it? ",
    "letters": "a",
    "exclamations": "!",
    "questions": "?!",
    "blank lines": "x\n\n\n\n\n\n\n",
    "brackets": "[<",
    "titles": "Mr. ",
    "initials": "a. ",
    "capitals": "AAA\n",
    "commas": "A,",
    "dividers": "\n\n***\n\n",
    "objects": '{"a":',
    "halves of characters": "\ud800",
    "bullets": "* \n",
}


@pytest.mark.parametrize("kind", BIG)
def test_any_length_takes_bounded_time(kind: str) -> None:
    """The longest response that is read, and a megabyte, which follows nothing."""
    checkers.checker(COMMA, {})
    longest = (BIG[kind] * LONGEST)[:LONGEST]
    slow = {}
    for name, kwargs, _, _ in CASES:
        start = time.process_time()
        ifeval.score(row((name, kwargs)), longest, S)
        assert not any(verdict.value for verdict in ifeval.score(row((name, kwargs)), longest * 5, S))
        slow[name] = max(time.process_time() - start, slow.get(name, 0.0))
    assert max(slow.values()) < 2.0, max(slow.items(), key=lambda item: item[1])


FRESH = """
import builtins, json, socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("network")
socket.socket.connect = refuse
from imprint.scores import ifeval
assert not {"torch", "transformers", "lm_eval", "nltk"} & set(sys.modules)
rows, response = json.loads(sys.argv[1])
print(json.dumps([ifeval.score(row, response, ifeval.Settings()) for row in rows]))
"""


def test_same_verdicts_in_every_process_without_network_or_prints() -> None:
    rows = [row((name, kwargs)) for name, kwargs, _, _ in CASES]
    response = "a b c d e. Bon jour, my friend!\n* UND so weiter [x]"
    outputs = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(punkt.Path(punkt.__file__).parents[2])}
        run = subprocess.run(
            [sys.executable, "-c", FRESH, json.dumps([rows, response])], env=environment, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1]
    assert outputs[0].count("\n") == 1  # nothing but our own line was printed
    here = [[list(verdict) for verdict in ifeval.score(item, response, S)] for item in rows]
    assert json.loads(outputs[0]) == here


def test_tables_are_written_side_by_side(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from imprint.instructions import punkt; punkt.install(Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(punkt.Path(punkt.__file__).parents[2])}
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    written = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert written == ["abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"]


# The reader.

LINE = {"key": 7, "prompt": PROMPT, "instruction_id_list": [COMMA, KEYWORDS], "kwargs": [{}, {"keywords": ["a"]}]}


def read(tmp_path: Path, *lines: bytes) -> list[dict]:
    path = tmp_path / "input_data.jsonl"
    path.write_bytes(b"\n".join(lines))
    return list(reader.rows(reader.Settings(), {"input_data.jsonl": path}))


def test_reader(tmp_path: Path) -> None:
    kept = {**LINE, "kwargs": [{"letter": None}, {"keywords": ["a"], "letter": None}]}
    first, second = read(tmp_path, json.dumps(LINE).encode(), json.dumps(kept).encode(), b"")
    assert first == second
    assert first == {
        "messages": [{"role": "user", "content": PROMPT}],
        "reference": {key: LINE[key] for key in ("instruction_id_list", "kwargs", "prompt")},
        "fields": {"key": 7},
        "strata": {"instructions": 2},
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\xff", "line 2: not valid UTF-8"),
        (b"{", "line 2: not valid JSON"),
        (b"[]", "line 2: no key, prompt, instruction_id_list, kwargs"),
        (json.dumps({**LINE, "kwargs": [{}]}).encode(), "line 2: instruction_id_list and kwargs"),
        (json.dumps({**LINE, "instruction_id_list": [COMMA, "x:y"]}).encode(), "line 2: unknown instruction 'x:y'"),
        (json.dumps({**LINE, "prompt": " "}).encode(), "line 2: the prompt is ' '"),
    ],
)
def test_reader_names_the_line(tmp_path: Path, line: bytes, message: str) -> None:
    with pytest.raises(ImprintError, match=message):
        read(tmp_path, json.dumps(LINE).encode(), line)


@pytest.mark.skipif("IMPRINT_DATA_MIRROR" not in os.environ, reason="set IMPRINT_DATA_MIRROR to a data mirror")
def test_the_real_prompts() -> None:
    path = Path(os.environ["IMPRINT_DATA_MIRROR"]) / "ifeval" / "input_data.jsonl"
    rows = list(reader.rows(reader.Settings(), {path.name: path}))
    ids = [name for item in rows for name in item["reference"]["instruction_id_list"]]
    assert (len(rows), len(ids), len(set(ids))) == (541, 834, 25)
    assert len({item["fields"]["key"] for item in rows}) == 541
    assert [sum(item["strata"]["instructions"] == n for item in rows) for n in (1, 2, 3)] == [305, 179, 57]
    assert not any(verdict.value for item in rows for verdict in ifeval.score(item, "\n ", S))
    for item in rows:
        if item["fields"]["key"] in (1122, 1129):
            at = item["reference"]["instruction_id_list"].index("keywords:letter_frequency")
            character = item["reference"]["kwargs"][at]["letter"]
            verdicts = ifeval.score(item, f"{'abcdefghij' * 9} {character * 9}", S)
            assert values(verdicts, "instruction_strict")[at] == 1.0
            assert values(ifeval.score(item, "abcdefghij" * 9, S), "instruction_loose")[at] == 0.0
