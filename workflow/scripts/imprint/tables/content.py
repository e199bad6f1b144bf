"""What a row says, as leakage is judged: its texts in small letters, without punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

SHORT = 4  # a text of fewer words, such as "go on", counts only if it is all that the row asks
LONG = 32  # an answer of at least as many words, a few sentences, gives an example away without its question


def asked(row: dict[str, Any]) -> set[str]:
    """What a row asks: the user's turns. A row of plain text has no turns; its options are its texts."""
    turns = [message["content"] for message in row["messages"] if message["role"] == "user"]
    options = (row.get("reference") or {}).get("options")
    texts = [normal(text) for text in turns or (map(str, options) if isinstance(options, list) else ())]
    return {text for text in texts if len(texts) == 1 or _words(text) >= SHORT}


def question(row: dict[str, Any]) -> str:
    """What a row asks as one text: the user's turns, each on lines of its own; of plain text, its options."""
    turns = [message["content"] for message in row["messages"] if message["role"] == "user"]
    return "\n".join(turns or map(str, (row.get("reference") or {}).get("options", [])))


def held_out(row: dict[str, Any]) -> set[str]:
    """The texts by which an example of an eval is known: what it asks, and its long answers, which are turns of the
    assistant or stand in its reference."""
    turns = (message["content"] for message in row["messages"] if message["role"] == "assistant")
    answers = map(normal, (*turns, *_strings(row.get("reference"))))
    return asked(row) | {text for text in answers if _words(text) >= LONG}


def trained_on(row: dict[str, Any]) -> set[str]:
    """The texts that a training row may put before a model: what it asks, every other turn, and its fields, such as a
    role prompt. Its reference is not among them: no method trains on its words."""
    turns = (message["content"] for message in row["messages"])
    texts = map(normal, (*turns, *_strings(row.get("fields"))))
    return asked(row) | {text for text in texts if _words(text) >= SHORT}


def normal(text: str) -> str:
    """The words of a text in small letters, one space apart."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _words(normal: str) -> int:
    return normal.count(" ") + 1 if normal else 0


def _strings(value: Any) -> Iterator[str]:
    """The texts anywhere in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)
