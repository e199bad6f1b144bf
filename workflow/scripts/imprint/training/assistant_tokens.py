"""Tokens and labels of a dialogue for fine-tuning. The assistant's tokens are labelled.

The chat template renders a dialogue once. The text is cut at the assistant's turns, and each piece is tokenized by
itself. So a prompt has the same tokens as in generation, and no token spans a prompt and an answer. In every assistant
turn, the words and the token that ends the turn are labelled:

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
    """Token ids and labels, of equal length. Both end with the last assistant turn, or at the greatest length. `full`
    is the number of tokens before the row was cut."""

    input_ids: list[int]
    labels: list[int]
    full: int


EMPTY = Example([0, 0], [IGNORED, IGNORED], 2)
"""A row without labels. It fills a batch, so that all ranks have as many rows."""


def spans(tokenizer: Any, messages: list[Message], where: str) -> list[tuple[ChatText, bool]]:
    """The rendered dialogue up to the end of the last assistant turn, in pieces: (text, whether the assistant says it).

    Raises ImprintError if a dialogue has no assistant turn or an empty one. Raises it too if the template renders turns
    otherwise inside a dialogue than as a prompt, as templates do that drop earlier thoughts. The model would then be
    trained on other prompt tokens than generation gives it. `where` names the row in errors."""
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise ImprintError(f"{where} has no assistant turn to train on; leave it out of the training data")
    try:
        dialogue = chat_text.render(tokenizer, messages, opened=False)
        prompts = [chat_text.template(tokenizer, messages[:i], opened=True) for i in turns]
    except ImprintError as error:
        raise ImprintError(f"{where}: {error}") from error
    text, pieces, done = dialogue.text, [], 0  # `done` characters of the text are in `pieces`
    special = chat_text.special_tokens(tokenizer, dialogue)
    for i, prompt in zip(turns, prompts, strict=True):
        content = messages[i]["content"]
        if not content.strip():
            raise ImprintError(f"{where} has an empty assistant turn; leave it out of the training data")
        if not text.startswith(prompt) or len(prompt) < done:
            raise ImprintError(
                f"{where}: the chat template renders turn {i + 1} otherwise in a dialogue than as a prompt"
            )
        # Some templates strip a turn's content.
        written = next((form for form in (content, content.strip()) if text.startswith(form, len(prompt))), None)
        if written is None:
            raise ImprintError(f"{where}: the chat template changes the words of turn {i + 1}")
        end_of_words = len(prompt) + len(written)
        following = bisect_left(special, (end_of_words, 0))  # index of the first special token after the words
        if following == len(special):
            after = text[end_of_words : end_of_words + 40]
            raise ImprintError(f"{where}: the chat template ends an assistant turn without a special token ({after!r})")
        end = special[following][1]
        pieces += [(dialogue.part(done, len(prompt)), False), (dialogue.part(len(prompt), end), True)]
        done = end
    return pieces


def encode(tokenizer: Any, messages: list[Message], max_length: int, where: str) -> Example:
    """The first `max_length` tokens of a dialogue, and their labels. Raises ImprintError as `spans` does; `where` names
    the row in errors."""
    ids: list[int] = []
    labels: list[int] = []
    for piece, is_assistant in spans(tokenizer, messages, where):
        tokens = chat_text.tokens(tokenizer, *piece)
        ids += tokens
        labels += tokens if is_assistant else [IGNORED] * len(tokens)
    return Example(ids[:max_length], labels[:max_length], len(ids))
