"""Text for a model: words from data stay text, and only the chat template writes special tokens.

A tokenizer cannot tell who wrote `<|im_end|>`: in a dataset row, a response or a teacher's answer, it would end the
turn. A rendered dialogue therefore has breaks: positions that no special token may span. To find them, the dialogue is
rendered a second time, with a mark inside every string that looks like a special token. To keep to them, the marked
text is tokenized, and the tokens of the marks are dropped. The user's `<|im_end|>` becomes the tokens of `<` and of
`|im_end|>`.

A dialogue without such strings is rendered and tokenized once, without marks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypedDict

from jinja2 import TemplateError

from imprint.runtime.errors import ImprintError

MARKS = range(0xE000, 0xF900)  # private-use characters: they have no meaning, and templates neither strip nor join them


class Message(TypedDict):
    """One turn of a dialogue: role is system, user or assistant."""

    role: str
    content: str


def unanswered(messages: Sequence[Message]) -> list[Message]:
    """A dialogue without the assistant's turns at its end: what is asked."""
    end = len(messages)
    while end and messages[end - 1]["role"] == "assistant":
        end -= 1
    return list(messages[:end])


class ChatText(NamedTuple):
    """Rendered text, and its breaks: the sorted positions that no special token may span."""

    text: str
    breaks: tuple[int, ...] = ()

    def part(self, start: int, end: int) -> ChatText:
        """The text from `start` to `end`, with the breaks inside it."""
        inside = tuple(position - start for position in self.breaks if start < position < end)
        return ChatText(self.text[start:end], inside)


class _Special(NamedTuple):
    """A tokenizer's special tokens: their texts, all proper prefixes (`heads`) and suffixes (`tails`) of the texts, and
    their ids. `normalized` says that other characters can also spell one, because a normalizer runs first."""

    texts: tuple[str, ...]
    heads: tuple[str, ...]
    tails: tuple[str, ...]
    ids: frozenset[int]
    normalized: bool


def _turn_marks(tokenizer: Any) -> str:
    """What the template writes around two plain turns. Its tokens count as special even if the tokenizer does not call
    them so. (Tokens for thoughts and tools are not in it: an assistant's own words may hold them.)"""
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
    """(start, end) of every special token in a text that spans no break, sorted by start, the longest first."""
    special = _special(tokenizer)
    places = set()
    for token in special.texts:
        start = text.text.find(token)
        while start >= 0:
            places.add((start, start + len(token)))
            start = text.text.find(token, start + 1)
    if special.normalized:
        encoded = tokenizer(text.text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        places |= {(start, end) for token, (start, end) in pairs if token in special.ids and end - start > 1}
    ends = (*text.breaks, len(text.text))
    unbroken = [(start, end) for start, end in places if end <= ends[bisect_right(ends, start)]]
    return sorted(unbroken, key=lambda place: (place[0], -place[1]))


def data(tokenizer: Any, text: str) -> ChatText:
    """A text that no template wrote, with breaks that keep every special token out."""
    return ChatText(text, tuple(sorted({start + 1 for start, _ in special_tokens(tokenizer, ChatText(text))})))


def template(tokenizer: Any, messages: Sequence[Message], opened: bool) -> str:
    """The dialogue in the model's template; `opened` adds the opening of the assistant's turn. Raises ImprintError if
    the template refuses the dialogue."""
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ImprintError(f"the model's chat template refuses a dialogue of {roles}: {error}") from error


def render(tokenizer: Any, messages: Sequence[Message], prefill: str = "", opened: bool = True) -> ChatText:
    """The dialogue in the model's template, followed by `prefill`; `opened` adds the opening of the assistant's turn.

    Without messages, the text is `prefill` after the model's start token, or after its end token if it has no start
    token: the first token of plain text has to be predicted from something.

    Raises ImprintError if the template refuses the dialogue, or if text that looks like a special token cannot be kept
    apart from the template's own tokens."""

    def rendered(contents: Sequence[str]) -> str:
        *words, end = contents
        if not words:
            return str(tokenizer.bos_token or tokenizer.eos_token) + end
        pairs = zip(messages, words, strict=True)
        turns = [Message(role=message["role"], content=content) for message, content in pairs]
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
    spans = special_tokens(tokenizer, ChatText(text))
    inside = {position for start, end in spans for position in range(start + 1, end)}
    breaks = tuple(sorted(inside.intersection(accumulate(map(len, pieces[:-1])))))
    if breaks:
        tokens(tokenizer, text, breaks)  # raises now, while the caller still knows which example it is
    return ChatText(text, breaks)


def tokens(tokenizer: Any, text: str, breaks: tuple[int, ...] = ()) -> list[int]:
    """Token ids of rendered text, where no special token spans one of `breaks`. None is added: the template has
    written the special tokens. Raises ImprintError if the tokenizer cannot read a special token as text."""
    if not breaks:
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids
    problem = "a special token stands in a message as text, which this model's tokenizer cannot read as characters"
    if not tokenizer.is_fast:
        raise ImprintError(f"{problem} (it does not say where its tokens stand); leave it out")
    mark = _mark(text)
    marked = mark.join(text[start:end] for start, end in pairwise((0, *breaks, len(text))))
    encoded = tokenizer(marked, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    kept, mark_starts = [], set()
    for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        if mark not in marked[start:end]:
            kept.append(token)
        elif end - start == 1:
            mark_starts.add(start)
        else:
            raise ImprintError(f"{problem} (it joins {marked[start:end].replace(mark, '')!r:.80}); leave it out")
    if len(mark_starts) < len(breaks):
        raise ImprintError(f"{problem} (it leaves out private-use characters); leave it out")
    return kept


def continued(tokenizer: Any, text: ChatText, continuations: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Token ids of a rendered text, and of each text that may continue it. They are tokenized apart, so that all
    continuations stand behind the same tokens. Spaces at the end of the text go to the continuations, since tokenizers
    join a space to the next word. Raises ImprintError like `tokens`."""
    before = text.text.rstrip(" ")
    spaces = text.text[len(before) :]
    rest = [tokens(tokenizer, *data(tokenizer, spaces + each)) for each in continuations]
    return tokens(tokenizer, before, text.breaks), rest


def _mark(text: str) -> str:
    """A private-use character that is not in the text."""
    mark = next((chr(code) for code in MARKS if chr(code) not in text), None)
    if mark is None:
        raise ImprintError("a message holds every private-use character, which is no text; leave them out")
    return mark


def _marked(tokenizer: Any, content: str, mark: str) -> str:
    """The content with a mark inside every string that looks like a special token. An end that could complete a special
    token together with its neighbour gets a mark too, on the inner side of the outer spaces, which some templates
    strip."""
    special, core = _special(tokenizer), content.strip()
    places = set(data(tokenizer, content).breaks)
    if content.startswith(special.tails) or core.startswith(special.tails):
        places.add(len(content) - len(content.lstrip()))
    if content.endswith(special.heads) or core.endswith(special.heads):
        places.add(len(content.rstrip()))
    return mark.join(content[start:end] for start, end in pairwise((0, *sorted(places), len(content))))
