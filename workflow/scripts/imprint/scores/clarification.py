"""Does a model ask when a request breaks off, and does its final answer use the withheld words? It scores dialogues in
the environment `clarification`, whose state it reads.

`asked` is 1 if a reply asked. `taken_up` is the share of the withheld words that are in the final answer; it is missing
if the state has no withheld words. It compares words, not sense, and a model may have guessed them. `replies` counts
the replies, with the final answer.

    state {"asked_in": 0, "replies": 2, "withheld": ["buttermilk", "pancake"]}, answer "Thin your pancake with yogurt."
    -> asked 1, taken_up 0.5, replies 2
"""

from __future__ import annotations

import re
from typing import Any

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.scores import Verdict

ASKS = "generate"
ENVIRONMENT = "clarification"
VERSION = "1"
PRIMARY = "asked"
METRICS = {"asked": 1, "taken_up": 1, "replies": 0}


class Settings(Strict):
    """Nothing to set."""


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """A verdict on each metric. Raises ImprintError for a row without the state of the environment."""
    state = row["state"]
    if not isinstance(state, dict) or not {"asked_in", "replies", "withheld"} <= state.keys():
        raise ImprintError(f"state: found {state!r:.80}; write that of a dialogue in the environment {ENVIRONMENT}")
    verdicts = [Verdict("asked", float(state["asked_in"] is not None)), Verdict("replies", float(state["replies"]))]
    if withheld := set(state["withheld"]):
        words = set(re.findall(r"\w+", response.casefold()))
        verdicts.append(Verdict("taken_up", len(withheld & words) / len(withheld)))
    return verdicts
