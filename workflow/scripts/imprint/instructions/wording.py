"""How the generated prompts ask for each of the 25 instructions: how its criteria are drawn, and phrasings of ours."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from imprint.instructions.requests import Request

# The instructions that are never trained on. A family of several members has some on both sides of the split.
HELD_OUT = (
    "change_case:english_lowercase",
    "combination:two_responses",
    "detectable_content:postscript",
    "detectable_format:number_bullet_lists",
    "keywords:forbidden_words",
    "keywords:letter_frequency",
    "length_constraints:nth_paragraph_first_word",
    "length_constraints:number_sentences",
    "punctuation:no_comma",
    "startend:quotation",
)

# Instructions that are alone in a prompt, because they fix the text as a whole, or its language.
ALONE = frozenset(
    {
        "combination:repeat_prompt",
        "combination:two_responses",
        "detectable_format:constrained_response",
        "detectable_format:json_format",
        "language:response_language",
    }
)

# A prompt holds at most one instruction of each of these sets. Two could not always be met together, or a person would
# read them as a contradiction (a text in small letters that ends with "P.S.").
_ONE_OF = (
    "change_case:english_capital change_case:english_lowercase change_case:capital_word_frequency",
    "keywords:existence keywords:forbidden_words keywords:frequency",
    "length_constraints:number_paragraphs length_constraints:nth_paragraph_first_word "
    "detectable_format:multiple_sections length_constraints:number_sentences",
)
_AGAINST = {
    "change_case:capital_word_frequency": "detectable_content:postscript detectable_format:multiple_sections",
    "change_case:english_capital": "startend:end_checker detectable_format:multiple_sections",
    "change_case:english_lowercase": "startend:end_checker detectable_content:postscript "
    "detectable_format:multiple_sections",
    "detectable_content:postscript": "startend:end_checker",
    "detectable_format:title": "startend:quotation",
    "keywords:forbidden_words": "length_constraints:nth_paragraph_first_word startend:end_checker",
    "keywords:letter_frequency": "keywords:existence keywords:frequency change_case:capital_word_frequency "
    "detectable_content:number_placeholders detectable_content:postscript detectable_format:multiple_sections "
    "detectable_format:title startend:end_checker length_constraints:nth_paragraph_first_word "
    "length_constraints:number_words length_constraints:number_sentences",
    "length_constraints:number_sentences": "length_constraints:number_words detectable_content:postscript "
    "detectable_format:number_bullet_lists",
}
CLASHES = (
    *(frozenset(names.split()) for names in _ONE_OF),
    *(frozenset((name, other)) for name, others in _AGAINST.items() for other in others.split()),
)

_LANGUAGES = {"de": "German", "es": "Spanish", "fr": "French", "it": "Italian", "pt": "Portuguese", "ru": "Russian"}
_ENDINGS = (
    "That is all I have to say.",
    "Thank you for reading this.",
    "I hope this was useful to you.",
    "Tell me what you think about it.",
    "Is there more you want to know?",
)
_FIRST_WORDS = ("however", "today", "people", "sometimes", "finally", "perhaps", "nobody", "tomorrow", "once", "many")


class Wording(NamedTuple):
    """`draw` draws the criteria, in IFEval's form. `sentence` fills them into one of the `phrasings`."""

    draw: Callable[[Random, Request], dict[str, Any]]
    phrasings: tuple[str, ...]


def _fixed(**criteria: Any) -> Callable[[Random, Request], dict[str, Any]]:
    """Draws every criterion on its own, from its range or tuple of values."""
    return lambda rng, _: {name: rng.choice(values) for name, values in criteria.items()}


def _bounds(number: str, relation: str, at_least: range, less_than: range) -> Callable[..., dict[str, Any]]:
    """A count with its relation; the two relations draw from different ranges."""

    def draw(rng: Random, _: Request) -> dict[str, Any]:
        drawn = rng.choice(("at least", "less than"))
        return {relation: drawn, number: rng.choice(at_least if drawn == "at least" else less_than)}

    return draw


def _first_word(rng: Random, _: Request) -> dict[str, Any]:
    paragraphs = rng.choice((2, 3, 4))
    nth = rng.choice(range(1, paragraphs + 1))
    return {"num_paragraphs": paragraphs, "nth_paragraph": nth, "first_word": rng.choice(_FIRST_WORDS)}


def _letter(rng: Random, _: Request) -> dict[str, Any]:
    relation = rng.choice(("at least", "less than"))
    letters, counts = ("bcdfghmpuwy", range(3, 11)) if relation == "at least" else ("bcfgjkpqvwxyz", range(3, 9))
    return {"letter": rng.choice(letters), "let_relation": relation, "let_frequency": rng.choice(counts)}


def _keyword(rng: Random, request: Request) -> dict[str, Any]:
    drawn = _bounds("frequency", "relation", range(2, 4), range(2, 4))(rng, request)
    return {"keyword": rng.choice(request.words), **drawn}


WORDINGS: dict[str, Wording] = {
    "change_case:capital_word_frequency": Wording(
        _bounds("capital_frequency", "capital_relation", range(2, 6), range(3, 7)),
        (
            "Words in all capital letters should appear {capital_relation} {capital_frequency} times.",
            "The number of words written fully in capitals has to be {capital_relation} {capital_frequency}.",
        ),
    ),
    "change_case:english_capital": Wording(
        _fixed(),
        (
            "Answer in English and use capital letters only.",
            "The whole answer must be in English, with every letter a capital.",
        ),
    ),
    "change_case:english_lowercase": Wording(
        _fixed(),
        (
            "Answer in English and use lowercase letters only.",
            "The whole answer must be in English, without a single capital letter.",
        ),
    ),
    "combination:repeat_prompt": Wording(
        lambda _, request: {"prompt_to_repeat": request.text},
        (
            "Before you answer, repeat the request above word for word. Write nothing in front of it, and do not "
            "repeat this sentence or the one before.",
            "Your answer must begin with an exact copy of the request above; only then comes the answer itself. "
            "This remark is not a part of the request.",
        ),
    ),
    "combination:two_responses": Wording(
        _fixed(),
        (
            "Give two different answers, with six asterisks (******) between them and nowhere else.",
            "Write two versions that differ. Separate them by ****** and use that mark only once.",
        ),
    ),
    "detectable_content:number_placeholders": Wording(
        _fixed(num_placeholders=range(2, 5)),
        (
            "Use at least {num_placeholders} placeholders in square brackets, such as [name].",
            "Leave at least {num_placeholders} gaps to be filled in, each written like [date] in square brackets.",
        ),
    ),
    "detectable_content:postscript": Wording(
        _fixed(postscript_marker=("P.S.", "P.P.S")),
        (
            "Close with a postscript that starts with {postscript_marker}",
            "After the answer, add a postscript; it has to begin with {postscript_marker}",
        ),
    ),
    "detectable_format:constrained_response": Wording(
        _fixed(),
        (
            "Reply with one of these: 'My answer is yes.', 'My answer is no.', 'My answer is maybe.'",
            "Choose between the replies My answer is yes. / My answer is no. / My answer is maybe.",
        ),
    ),
    "detectable_format:json_format": Wording(
        _fixed(),
        (
            "The whole output must be valid JSON; markdown ticks around it are allowed.",
            "Return JSON and nothing else.",
        ),
    ),
    "detectable_format:multiple_sections": Wording(
        _fixed(section_spliter=("Section", "SECTION", "Part"), num_sections=(2, 3)),
        (
            "Divide the answer into {num_sections} sections that start with {section_spliter} X, where X is 1, 2 and "
            "so on.",
            "Write {num_sections} sections. Put {section_spliter} and the number of the section at the start of each.",
        ),
    ),
    "detectable_format:number_bullet_lists": Wording(
        _fixed(num_bullets=range(2, 6)),
        (
            "Use exactly {num_bullets} bullet points in markdown, like this:\n* a point",
            "The answer must have {num_bullets} markdown bullets, neither more nor fewer, each on its own line after "
            "an asterisk: * text",
        ),
    ),
    "detectable_format:number_highlighted_sections": Wording(
        _fixed(num_highlights=range(2, 4)),
        (
            "Highlight at least {num_highlights} phrases with markdown, as in *this phrase*.",
            "At least {num_highlights} parts of the answer have to stand between asterisks, *like this*.",
        ),
    ),
    "detectable_format:title": Wording(
        _fixed(),
        (
            "Give the answer a title in double angular brackets, such as <<A fine day>>.",
            "There must be a title, and it must be written <<like this>>.",
        ),
    ),
    "keywords:existence": Wording(
        lambda rng, request: {"keywords": rng.sample(request.words, rng.choice((1, 2)))},
        ("Use these words: {keywords}.", "The following has to occur in the answer: {keywords}."),
    ),
    "keywords:forbidden_words": Wording(
        lambda rng, request: {"forbidden_words": rng.sample(request.words, rng.choice((1, 2, 3)))},
        ("Do not use these words: {forbidden_words}.", "Avoid the following completely: {forbidden_words}."),
    ),
    "keywords:frequency": Wording(
        _keyword,
        (
            "The word {keyword} should appear {relation} {frequency} times.",
            "Use the word {keyword} {relation} {frequency} times.",
        ),
    ),
    "keywords:letter_frequency": Wording(
        _letter,
        (
            "The letter {letter} should appear {let_relation} {let_frequency} times.",
            "Count the letter {letter}: it has to occur {let_relation} {let_frequency} times in the answer.",
        ),
    ),
    "language:response_language": Wording(
        _fixed(language=tuple(_LANGUAGES)),
        (
            "Answer in {language_name} only; no other language is allowed.",
            "The whole answer has to be written in {language_name}.",
        ),
    ),
    "length_constraints:nth_paragraph_first_word": Wording(
        _first_word,
        (
            "Write {num_paragraphs} paragraphs with an empty line between them. Paragraph {nth_paragraph} must start "
            "with the word {first_word}.",
            "The answer has {num_paragraphs} paragraphs, separated by two newlines and in no other way. Begin "
            "paragraph {nth_paragraph} with the word {first_word}.",
        ),
    ),
    "length_constraints:number_paragraphs": Wording(
        _fixed(num_paragraphs=range(2, 5)),
        (
            "Write {num_paragraphs} paragraphs and separate them with the markdown divider ***",
            "There should be {num_paragraphs} paragraphs with the divider *** between one and the next.",
        ),
    ),
    "length_constraints:number_sentences": Wording(
        _bounds("num_sentences", "relation", range(2, 7), range(3, 8)),
        (
            "Your answer should contain {relation} {num_sentences} sentences.",
            "Write {relation} {num_sentences} sentences.",
        ),
    ),
    "length_constraints:number_words": Wording(
        _bounds("num_words", "relation", range(20, 90, 10), range(40, 110, 10)),
        (
            "Answer with {relation} {num_words} words.",
            "The length of the answer is to be {relation} {num_words} words.",
        ),
    ),
    "punctuation:no_comma": Wording(
        _fixed(), ("Do not use any commas.", "The answer must not contain a single comma.")
    ),
    "startend:end_checker": Wording(
        _fixed(end_phrase=_ENDINGS),
        (
            "Finish with exactly this sentence: {end_phrase} Nothing may follow it.",
            "The last words of the answer must be: {end_phrase}",
        ),
    ),
    "startend:quotation": Wording(
        _fixed(),
        (
            "Put the whole answer in double quotation marks.",
            "The answer has to start and end with a double quotation mark.",
        ),
    ),
}


def sentence(phrasing: str, criteria: dict[str, Any]) -> str:
    """A phrasing with the criteria filled in. Lists become words with commas, language codes become names."""
    texts = {name: ", ".join(value) if isinstance(value, list) else value for name, value in criteria.items()}
    return phrasing.format(**texts, language_name=_LANGUAGES.get(str(criteria.get("language")), ""))
