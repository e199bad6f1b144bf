"""Checkers of the 25 IFEval instructions: lm-eval's classes, except a few that are replaced.

lm-eval's classes give the verdicts of the reference scorer (google-research, instruction_following_eval). Replaced are
- letter frequency: lm-eval exchanges a character outside a-z for a random letter, ours counts that character;
- the language checks: langdetect samples without a seed, and reads far more text than it uses;
- JSON: deep nesting raises RecursionError in lm-eval, and is not JSON in ours;
- checks whose regular expressions or sentence splitter take quadratic time on degenerate text (a megabyte of blank
  lines, brackets or exclamation marks): ours reach the same verdicts in linear time.
Words and sentences are those of nltk 3.9, which reproduces the published verdicts. From 3.10 on, nltk ends sentences at
curly quotes, splits words at dashes, and counts fewer words in scripts with combining marks.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Protocol

from imprint.instructions import punkt

_LONG = 4096  # characters; longer pieces of text are worked on in parts
_LONG_RUN = re.compile(r"([!?])\1{99,}")
_LETTERS = re.compile(r"[^\W\d_]+|[^\w\s]")
_SPLIT_INSIDE_WORDS = re.compile(r"(?i)cannot|gimme|gonna|gotta|lemme|wanna|n't")


class Checker(Protocol):
    """One instruction with its criteria."""

    def build_description(self, **kwargs: Any) -> str: ...
    def check_following(self, value: str) -> bool: ...


def checker(instruction: str, kwargs: dict[str, Any]) -> Checker:
    """The checker of one instruction, with criteria as `imprint.instructions.check` returns them."""
    instance: Checker = _classes()[instruction](instruction)
    instance.build_description(**kwargs)
    return instance


def language(text: str) -> str | None:
    """ISO 639-1 code by langdetect with seed 0, or None when it finds no features. langdetect blanks addresses and uses
    the first 10,000 characters of what remains, so only as much text as that takes is handed to it."""
    import langdetect
    from langdetect.detector import Detector

    length = 4 * _LONG
    while length < len(text):
        start = Detector.MAIL_RE.sub(" ", Detector.URL_RE.sub(" ", text[:length]))
        if len(start) >= 10_000 + 3_000:  # an address (at most 2,084 characters) may be cut at the end of the part
            break
        length *= 2
    langdetect.DetectorFactory.seed = 0
    try:
        return str(langdetect.detect(text[:length]))
    except langdetect.LangDetectException:
        return None


def count_bullets(text: str) -> int:
    """How many lines begin with `*` (not `**`) or `-`, after blanks. The line below a lone `*` is that bullet's text,
    and is not counted."""
    lines = text.split("\n")
    count = sum(line.lstrip().startswith("-") for line in lines)
    place = 0
    while place < len(lines):
        line = lines[place].lstrip()
        if line == "*":
            count += place + 1 < len(lines)
            place += 1
        elif line.startswith("*"):
            count += line[1] != "*"
        place += 1
    return count


def count_placeholders(text: str) -> int:
    """How many pairs of `[` and the next `]` on the same line there are, from left to right."""
    count = 0
    for line in text.split("\n"):
        start = line.find("[")
        while start >= 0 and (end := line.find("]", start + 1)) >= 0:
            count += 1
            start = line.find("[", end + 1)
    return count


def has_title(text: str) -> bool:
    """Whether some line has `<<`, then `>>`, with more than angle brackets and blanks in between."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and start + 3 <= end and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


@functools.cache
def _sentence_tokenizer() -> Any:
    """nltk's English Punkt tokenizer with a cache. It decides at each period, `!` and `?` from the words around it, and
    the same words recur within a response and between the eight variants of the loose check."""
    from nltk.tokenize.punkt import PunktTokenizer

    class Tokenizer(PunktTokenizer):  # type: ignore[misc]
        def text_contains_sentbreak(self, text: str) -> bool:
            return self._short(text) if len(text) < _LONG else self._long(text)

        @functools.lru_cache(maxsize=1 << 17)  # noqa: B019 - one instance per process
        def _short(self, text: str) -> bool:
            return bool(super().text_contains_sentbreak(text))

        def _long(self, text: str) -> bool:
            # A token is judged by itself and its right neighbour, so a break well before the cut holds for the full
            # text.
            start = list(self._annotate_tokens(self._tokenize_words(text[:_LONG])))
            if any(token.sentbreak for token in start[:-3]):
                return True
            return bool(super().text_contains_sentbreak(text))

    return Tokenizer("english")


def at_least_sentences(text: str, number: float) -> bool:
    """Whether nltk splits the text into at least `number` sentences; stops at the last one needed."""
    if number <= 0:
        return True
    text = _LONG_RUN.sub(lambda run: run[0][:50], text)  # nltk treats all runs of about 5 characters and more alike
    return any(count >= number for count, _ in enumerate(_sentence_tokenizer().span_tokenize(text), start=1))


@functools.lru_cache(maxsize=1 << 14)
def _capital_tokens(part: str) -> int:
    from nltk.tokenize import NLTKWordTokenizer

    return sum(token.isupper() for token in NLTKWordTokenizer().tokenize(part))


def _parts(sentence: str) -> list[str]:
    """A sentence in parts that are cut at blanks. The cuts do not change the count of capital tokens: no word token
    spans a blank, and a period that nltk splits off at the end of a part has no case."""
    parts = []
    while len(sentence) > _LONG:
        words = sentence[_LONG:].split(maxsplit=1)
        if len(words) < 2:
            break
        cut = len(sentence) - len(words[1])
        parts.append(sentence[:cut])
        sentence = sentence[cut:]
    return [*parts, sentence]


def at_least_capital_words(text: str, number: float) -> bool:
    """Whether at least `number` of nltk's word tokens of the text have a capital and no small letter."""
    if number <= 0:
        return True
    if sum(map(str.isupper, text)) < number:
        return False
    count = 0
    for start, end in _sentence_tokenizer().span_tokenize(text):
        for part in _parts(text[start:end]):
            # Quick test: a token in capitals is a run of capital letters, unless the tokenizer cuts inside a word.
            if _SPLIT_INSIDE_WORDS.search(part) or any(piece.isupper() for piece in _LETTERS.findall(part)):
                count += _capital_tokens(part)
                if count >= number:
                    return True
    return False


@functools.cache
def _classes() -> dict[str, type[Any]]:
    """Instruction id -> class. The imports are inside, because they take seconds and look for nltk's tables."""
    punkt.install()
    from lm_eval.tasks.ifeval import instructions as reference
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    class Letters(reference.LetterFrequencyChecker):  # type: ignore[misc]
        def build_description(self, *, letter: str, **kwargs: Any) -> str:
            described = str(super().build_description(letter="a", **kwargs))
            self._letter = letter.lower()
            return described

    class Language(reference.ResponseLanguageChecker):  # type: ignore[misc]
        def check_following(self, value: str) -> bool:
            return language(value) in (None, self._language)

    class Capitals(reference.CapitalLettersEnglishChecker):  # type: ignore[misc]
        def check_following(self, value: str) -> bool:
            return value.isupper() and language(value) in (None, "en")

    class Lowercase(reference.LowercaseLettersEnglishChecker):  # type: ignore[misc]
        def check_following(self, value: str) -> bool:
            return value.islower() and language(value) in (None, "en")

    class Json(reference.JsonFormat):  # type: ignore[misc]
        def check_following(self, value: str) -> bool:
            try:
                return bool(super().check_following(value))
            except RecursionError:
                return False

    class Postscript(reference.PostscriptChecker):  # type: ignore[misc]
        def check_following(self, value: str) -> bool:
            markers = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
            pattern = markers.get(self._postscript_marker, self._postscript_marker.lower())
            return re.search(pattern, value.lower(), flags=re.MULTILINE) is not None

    class Bullets(reference.BulletListChecker):  # type: ignore[misc]
        def check_following(self, value: str) -> bool:
            return bool(count_bullets(value) == self._num_bullets)

    class Placeholders(reference.PlaceholderChecker):  # type: ignore[misc]
        def check_following(self, value: str) -> bool:
            return bool(count_placeholders(value) >= self._num_placeholders)

    class Title(reference.TitleChecker):  # type: ignore[misc]
        def check_following(self, value: str) -> bool:
            return has_title(value)

    class Sentences(reference.NumberOfSentences):  # type: ignore[misc]
        def check_following(self, value: str) -> bool:
            enough = at_least_sentences(value, self._num_sentences_threshold)
            return bool(enough == (self._comparison_relation == "at least"))

    class CapitalWords(reference.CapitalWordFrequencyChecker):  # type: ignore[misc]
        def check_following(self, value: str) -> bool:
            enough = at_least_capital_words(value, self._frequency)
            return bool(enough == (self._comparison_relation == "at least"))

    classes: dict[str, type[Any]] = INSTRUCTION_DICT | {
        "keywords:letter_frequency": Letters,
        "language:response_language": Language,
        "change_case:english_capital": Capitals,
        "change_case:english_lowercase": Lowercase,
        "detectable_format:json_format": Json,
        "detectable_content:postscript": Postscript,
        "detectable_format:number_bullet_lists": Bullets,
        "detectable_content:number_placeholders": Placeholders,
        "detectable_format:title": Title,
        "length_constraints:number_sentences": Sentences,
        "change_case:capital_word_frequency": CapitalWords,
    }
    return classes
