"""How well does a model still predict plain text? Negative log-likelihood per token of the row's texts, in nats.

A row has messages [] and reference {"options": [text]}. Example: -120 nats over 40 tokens give 3.0.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from imprint.runtime.plugins import Strict
from imprint.scores import Option, Reads, Verdict

ASKS = "loglikelihood"
VERSION = "1"
PRIMARY = "nll_per_token"
METRICS = {"nll_per_token": -1}


class Settings(Strict):
    """Nothing to set."""


class Reference(Reads):
    options: list[str] = Field(min_length=1, description="the texts")


def score(row: dict[str, Any], response: list[Option], settings: Settings) -> list[Verdict]:
    """One verdict over all texts of the row. Its value is None without tokens, or with a log-likelihood that is not
    finite."""
    tokens = sum(option.tokens for option in response)
    total = sum(option.logprob for option in response)
    return [Verdict("nll_per_token", -total / tokens if tokens and math.isfinite(total) else None)]
