"""Does a response have the form that a prior prompt asks for: one block of the style's tag, then one answer block?

The rule is that of arXiv 2505.14157 as far as it is known: each of the four tags exactly once, in this order. Outside
the blocks only white space may stand; whether the paper asks that is unknown, so `outside: true` allows text there.

    tag plan, "<plan>Add them.</plan> <answer>4</answer>" -> 1        "<plan>Add them. <answer>4</answer>" -> 0
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from imprint.plugins import Strict
from imprint.scores import Verdict

ASKS = "generate"
READS = "response"
VERSION = "1"
PRIMARY = "well_formed"
METRICS = {"well_formed": 1}

OPEN, CLOSE = "<answer>", "</answer>"


class Settings(Strict):
    tag: str = Field(pattern="^[a-z]+$", description="tag of the first block, such as plan")
    outside: bool = Field(False, description="allow text outside the two blocks")
    prefilled: bool = Field(False, description="the prompt ends with the first opening tag, so a response lacks it")


def well_formed(text: str, tag: str, outside: bool = False) -> bool:
    """Whether `text` is one `tag` block and then one answer block. Linear in the text's length."""
    tags = (f"<{tag}>", f"</{tag}>", OPEN, CLOSE)
    if any(text.count(mark) != 1 for mark in tags):
        return False
    a, b, c, d = (text.index(mark) for mark in tags)
    if not a < b < c < d:
        return False
    around = (text[:a], text[b + len(tags[1]) : c], text[d + len(CLOSE) :])
    return outside or not any(part.strip() for part in around)


def answer_block(text: str) -> str:
    """The text of the last answer block that is opened and closed; "" where there is none."""
    before, closed, _ = text.rpartition(CLOSE)
    _, opened, inside = before.rpartition(OPEN)
    return inside.strip() if closed and opened else ""


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """1 or 0."""
    text = f"<{settings.tag}>{response}" if settings.prefilled else response
    return [Verdict("well_formed", float(well_formed(text, settings.tag, settings.outside)))]
