"""Best of n: an answer is drawn n times, and the likeliest one per token is taken: that with the largest mean
log-probability of its tokens, as the model gives them at temperature 1. Of equally likely ones the first is taken.
Nothing is drawn where options are scored, nor where a context says how it wants a text drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from pydantic import Field

from imprint.engines import Response
from imprint.policies.dialogue import Outcome, Request, Turns
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.tables.inputs import Read

LIKELIHOODS = True


class Settings(Strict):
    n: int = Field(ge=1, le=1024, description="draws of each answer, each of which costs a response; 1 chooses nothing")
    temperature: float = Field(
        1.0,
        gt=0,
        le=10,
        description="of the draws, whatever the eval's is; 1, our default, is the model's own distribution, and near 0 "
        "all draws are the same. The nucleus is the eval's `top_p`",
    )


def turns(request: Request, row: dict[str, Any], settings: Settings, inputs: Read) -> Turns:
    """All draws at once. Raises ImprintError where the engine gives no log-probabilities."""
    draws = yield [replace(request, temperature=settings.temperature)] * settings.n
    best = max(draws, key=_mean_logprob)  # the first of the largest
    return Outcome(best.text or "", None, best)


def draws(settings: Settings) -> bool:
    """Always: the temperature is its own."""
    return True


def _mean_logprob(response: Response) -> float:
    """Nats per generated token, the end token included; what is no number is less than any."""
    if response.logprob_sum is None or not response.response_tokens:
        raise ImprintError(
            "decoder 'best_of': the engine gives no log-probability of a response; write an engine that does, or drop "
            "the decoder"
        )
    mean = response.logprob_sum / response.response_tokens
    return -math.inf if math.isnan(mean) else mean
