"""Which tokens of a dialogue are the assistant's: what a fine-tuning row looks like to a model.

A dialogue is rendered once by the chat template and cut at the assistant's turns; the pieces are tokenized apart. So
the prompt has the tokens that it has when the model is asked, the answer those that the model would write behind it,
and no token lies across the border. Labelled are the assistant's words and the token that ends its turn, in every turn:

<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nHello!<|im_end|>
                                                      ------------------ labelled
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, NamedTuple

from imprint.models import chat_text
from imprint.models.chat_text import ChatText, Message
from imprint.runtime.errors import ImprintError

IGNORED = -100
"""The label that torch's cross-entropy leaves out."""


class Example(NamedTuple):
    """Token ids and labels of equal length; both end with the last assistant turn. `full` is the length before the row
    was cut to the greatest length."""

    input_ids: list[int]
    labels: list[int]
    full: int


def spans(tokenizer: Any, messages: list[Message], where: str) -> list[tuple[ChatText, bool]]:
    """The rendered dialogue in pieces, up to the end of the last assistant turn: (text, whether it is the assistant's).

    Raises when there is no assistant turn, an empty one, or a template whose rendering of a dialogue does not begin
    with its rendering of the turns before (some drop what was thought in earlier turns): the tokens that are trained
    on would then not be those the model is asked with."""
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise ImprintError(f"{where} has no assistant turn to train on; leave it out of the training data")
    try:
        whole = chat_text.render(tokenizer, messages, opened=False)
        prompts = [chat_text.template(tokenizer, messages[:i], opened=True) for i in turns]
    except ImprintError as error:
        raise ImprintError(f"{where}: {error}") from error
    text, pieces, done = whole.text, [], 0
    special = chat_text.special_tokens(tokenizer, whole)
    for i, prompt in zip(turns, prompts, strict=True):
        content = messages[i]["content"]
        if not content.strip():
            raise ImprintError(f"{where} has an empty assistant turn; leave it out of the training data")
        if not text.startswith(prompt) or len(prompt) < done:
            raise ImprintError(
                f"{where}: the chat template renders turn {i + 1} otherwise in a dialogue than as a prompt"
            )
        # Some templates strip what they are given.
        written = next((form for form in (content, content.strip()) if text.startswith(form, len(prompt))), None)
        if written is None:
            raise ImprintError(f"{where}: the chat template changes the words of turn {i + 1}")
        words = len(prompt) + len(written)
        place = bisect_left(special, (words, 0))  # of the token that ends the turn
        if place == len(special):
            rest = text[words : words + 40]
            raise ImprintError(f"{where}: the chat template ends an assistant turn without a special token ({rest!r})")
        end = special[place][1]
        pieces += [(whole.part(done, len(prompt)), False), (whole.part(len(prompt), end), True)]
        done = end
    return pieces


def encode(tokenizer: Any, messages: list[Message], max_length: int, where: str) -> Example:
    """Tokens and labels of a dialogue, cut to `max_length` tokens from the start. `where` names the row in errors."""
    ids: list[int] = []
    labels: list[int] = []
    for text, assistant in spans(tokenizer, messages, where):
        piece = chat_text.tokens(tokenizer, *text)
        ids += piece
        labels += piece if assistant else [IGNORED] * len(piece)
    return Example(ids[:max_length], labels[:max_length], len(ids))
