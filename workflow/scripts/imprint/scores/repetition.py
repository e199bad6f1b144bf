"""How much a response repeats itself, as text does that was steered too strongly.

`distinct_2` is the share of different ones among its two-word sequences (Li et al., arXiv 1510.03055), `repeats` how
often its commonest three-word sequence comes. `degenerate` is 1 where this is 6 times or more, or where `distinct_2` is
below 0.2 (the rule of the code of arXiv 2605.06196). All are descriptive.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import Any

from imprint.runtime.plugins import Strict
from imprint.scores import Verdict

ASKS = "generate"
READS = "response"
VERSION = "1"
PRIMARY = "degenerate"
METRICS = {"degenerate": 0, "distinct_2": 0, "repeats": 0}

HEAD = 20_000  # characters; the rule reads the beginning of a response
WORD = re.compile(r"\w+|[^\w\s]")
OFTEN, FEW = 6, 0.2


class Settings(Strict):
    """Nothing to set: the rule is fixed, so that arms can be compared."""


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """The three metrics. A response of less than two words repeats nothing: distinct_2 is 1."""
    words = WORD.findall(response[:HEAD].casefold())
    pairs = list(pairwise(words))
    distinct = len(set(pairs)) / len(pairs) if pairs else 1.0
    repeats = max(Counter(zip(words, words[1:], words[2:], strict=False)).values(), default=0)
    values = {"degenerate": repeats >= OFTEN or distinct < FEW, "distinct_2": distinct, "repeats": repeats}
    return [Verdict(metric, float(value)) for metric, value in values.items()]
