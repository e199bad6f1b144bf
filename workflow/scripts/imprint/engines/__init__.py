"""Engines: what runs a model. An engine takes rendered prompts and gives back responses; it knows nothing of examples,
arms or evals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """Text to continue, rendered by the chat template, and how. `temperature` 0 is greedy. `seed` drives this prompt's
    sampling alone, so that a response does not depend on what else is in the batch. A response ends at the model's
    end token, before one of `stop`, or at `max_new_tokens`. No special token lies across one of `breaks`
    (`imprint.chat_text`)."""

    text: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    breaks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Candidates:
    """A prompt and the texts whose likelihood as its continuation is asked for. `breaks` are the prompt's; the
    continuations hold no special token at all."""

    text: str
    continuations: tuple[str, ...]
    breaks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Response:
    """What a model said. `finish_reason` is "stop" or "length"; `logprob_sum` (nats, temperature 1) is over all
    generated tokens, as is `response_tokens`, the end token and the tokens of a stop text included, though `text` ends
    before them. For a given continuation they are its own, and there is no finish reason. `seconds` is an equal share
    of the batch's wall time. `error` says why there is no response."""

    text: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    response_tokens: int | None
    logprob_sum: float | None
    seconds: float
    error: str | None = None


def failed(error: str, prompt_tokens: int | None = None) -> Response:
    """A response that is missing, and why."""
    return Response(None, None, prompt_tokens, None, None, 0.0, error)
