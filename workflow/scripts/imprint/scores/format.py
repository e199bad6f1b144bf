"""Does a response have the form that a prior prompt asks for: one block of the style's tag, then one answer block?

The rule is that of arXiv 2505.14157 as far as it is published: each of the four tags exactly once, in this order.
Outside the blocks only white space is allowed. The paper does not say whether it allows text there; `outside: true`
does.

    tag plan, "<plan>Add them.</plan> <answer>4</answer>" -> 1        "<plan>Add them. <answer>4</answer>" -> 0
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from imprint.runtime.plugins import Strict
from imprint.scores import Verdict
from imprint.scoring.forms import well_formed

ASKS = "generate"
READS = "response"
VERSION = "1"
PRIMARY = "well_formed"
METRICS = {"well_formed": 1}


class Settings(Strict):
    tag: str = Field(pattern="^[a-z]+$", description="tag of the first block, such as plan")
    outside: bool = Field(False, description="allow text outside the two blocks")
    prefilled: bool = Field(False, description="the prompt ends with the first opening tag, so a response lacks it")


def form(settings: Settings) -> str | None:
    """The tag of the first block."""
    return settings.tag


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """`well_formed`: 1 or 0."""
    text = f"<{settings.tag}>{response}" if settings.prefilled else response
    return [Verdict("well_formed", float(well_formed(text, settings.tag, settings.outside)))]
