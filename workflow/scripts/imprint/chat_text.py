"""Text for a model: what data say stays text, and only the chat template writes special tokens.

A tokenizer cannot tell who wrote `<|im_end|>`: inside a dataset row, a response or a teacher's answer it would end a
turn. So a rendered dialogue knows the places that no special token may lie across. They are found by rendering once
more with a mark inside each such string, and tokens keep to them by being made of the marked text, without the marks'
own. The user's `<|im_end|>` is then the tokens of `<` and of `|im_end|>`.

Dialogues without such strings are rendered and tokenized once, as they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from jinja2 import TemplateError

from imprint.contexts import Message
from imprint.errors import ImprintError

MARKS = range(0xE000, 0xF900)  # private-use characters: they mean nothing, and nothing strips or joins them


class ChatText(NamedTuple):
    """Rendered text, and the places in it (sorted) that no special token may lie across."""

    text: str
    breaks: tuple[int, ...] = ()

    def part(self, start: int, end: int) -> ChatText:
        """The text from `start` to `end`."""
        return ChatText(self.text[start:end], tuple(at - start for at in self.breaks if start < at < end))


class _Special(NamedTuple):
    """A tokenizer's special tokens: their texts, what these begin and end with, and their ids. `normalized`: some are
    also written with other characters, which the tokenizer's normalizer makes the same."""

    texts: tuple[str, ...]
    heads: tuple[str, ...]
    tails: tuple[str, ...]
    ids: frozenset[int]
    normalized: bool


def _turn_marks(tokenizer: Any) -> str:
    """What the template writes around two plain turns: some tokenizers do not call the tokens in it special. (Those for
    thoughts and tools are not in it, and are tokens in an assistant's words too.)"""
    turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False)) if tokenizer.chat_template else ""
    except TemplateError:
        return ""


@cache
def _special(tokenizer: Any) -> _Special:
    marks = _turn_marks(tokenizer)
    added = tokenizer.added_tokens_decoder.items()
    tokens = {i: t for i, t in added if (t.special or t.content in marks) and len(t.content) > 1}
    texts = {token.content for token in tokens.values()}
    return _Special(
        tuple(texts),
        tuple({text[:size] for text in texts for size in range(1, len(text))}),
        tuple({text[size:] for text in texts for size in range(1, len(text))}),
        frozenset(tokens) - {tokenizer.unk_token_id},
        any(token.normalized for token in tokens.values())
        and tokenizer.is_fast
        and tokenizer.backend_tokenizer.normalizer is not None,
    )


def special_tokens(tokenizer: Any, text: ChatText) -> list[tuple[int, int]]:
    """Where special tokens stand in a text: (start, end), the longest first of those with one start."""
    special = _special(tokenizer)
    places = set()
    for token in special.texts:
        start = text.text.find(token)
        while start >= 0:
            places.add((start, start + len(token)))
            start = text.text.find(token, start + 1)
    if special.normalized:
        read = tokenizer(text.text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
        pairs = zip(read["input_ids"], read["offset_mapping"], strict=True)
        places |= {(start, end) for token, (start, end) in pairs if token in special.ids and end - start > 1}
    ends = (*text.breaks, len(text.text))
    whole = [(start, end) for start, end in places if end <= ends[bisect_right(ends, start)]]
    return sorted(whole, key=lambda place: (place[0], -place[1]))


def data(tokenizer: Any, text: str) -> ChatText:
    """A text that no template wrote: nothing in it is a special token."""
    return ChatText(text, tuple(sorted({start + 1 for start, _ in special_tokens(tokenizer, ChatText(text))})))


def template(tokenizer: Any, messages: Sequence[Message], opened: bool) -> str:
    """The dialogue in the model's template, if `opened` with the opening of the assistant's turn."""
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ImprintError(f"the model's chat template refuses a dialogue of {roles}: {error}") from error


def render(tokenizer: Any, messages: Sequence[Message], prefill: str = "", opened: bool = True) -> ChatText:
    """The dialogue in the model's template, if `opened` with the opening of the assistant's turn, and `prefill`. No
    messages stands for plain text, which begins with the text's start token (the end token for a model without one):
    it has to be predicted from something.

    Raises ImprintError where the template refuses the dialogue, and where text that looks like a special token cannot
    be kept apart from the template's own."""

    def rendered(contents: Sequence[str]) -> str:
        *words, end = contents
        if not words:
            return str(tokenizer.bos_token or tokenizer.eos_token) + end
        turns = [Message(role=one["role"], content=content) for one, content in zip(messages, words, strict=True)]
        return template(tokenizer, turns, opened) + end

    contents = [*(message["content"] for message in messages), prefill]
    text = rendered(contents)
    mark = _mark("".join((text, *contents)))
    marked = [_marked(tokenizer, content, mark) for content in contents]
    if marked == contents:
        return ChatText(text)
    pieces = rendered(marked).split(mark)
    if "".join(pieces) != text:
        raise ImprintError(
            "a special token, or a part of one, stands in a message as text, and the model's chat template makes "
            "something else of such a message; leave it out"
        )
    inside = {at for start, end in special_tokens(tokenizer, ChatText(text)) for at in range(start + 1, end)}
    breaks = tuple(sorted(inside.intersection(accumulate(map(len, pieces[:-1])))))
    if breaks:
        tokens(tokenizer, text, breaks)  # what cannot be tokenized is told here, where the example is known
    return ChatText(text, breaks)


def tokens(tokenizer: Any, text: str, breaks: tuple[int, ...] = ()) -> list[int]:
    """Token ids of rendered text, with no special token across one of `breaks`. The template has written the special
    tokens, so none are added. Raises ImprintError for a tokenizer that cannot read a special token as text."""
    if not breaks:
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids
    cannot = "a special token stands in a message as text, which this model's tokenizer cannot read as characters"
    if not tokenizer.is_fast:
        raise ImprintError(f"{cannot} (it does not say where its tokens stand); leave it out")
    mark = _mark(text)
    marked = mark.join(text[start:end] for start, end in pairwise((0, *breaks, len(text))))
    read = tokenizer(marked, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    kept, marks = [], set()
    for token, (start, end) in zip(read["input_ids"], read["offset_mapping"], strict=True):
        if mark not in marked[start:end]:
            kept.append(token)
        elif end - start == 1:
            marks.add(start)
        else:
            raise ImprintError(f"{cannot} (it joins {marked[start:end].replace(mark, '')!r:.80}); leave it out")
    if len(marks) < len(breaks):
        raise ImprintError(f"{cannot} (it leaves out private-use characters); leave it out")
    return kept


def _mark(text: str) -> str:
    """A private-use character that the text does not hold."""
    mark = next((chr(code) for code in MARKS if chr(code) not in text), None)
    if mark is None:
        raise ImprintError("a message holds every private-use character, which is no text; leave them out")
    return mark


def _marked(tokenizer: Any, content: str, mark: str) -> str:
    """The content with a mark inside whatever looks like a special token, and at an end that could be a part of one,
    whose rest stands beside it. Marks are put inside the spaces around the content, which some templates strip."""
    special, core = _special(tokenizer), content.strip()
    places = set(data(tokenizer, content).breaks)
    if content.startswith(special.tails) or core.startswith(special.tails):
        places.add(len(content) - len(content.lstrip()))
    if content.endswith(special.heads) or core.endswith(special.heads):
        places.add(len(content.rstrip()))
    return mark.join(content[start:end] for start, end in pairwise((0, *sorted(places), len(content))))
