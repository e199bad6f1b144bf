"""The forms of what a server with the chat interface of OpenAI sends. Nothing in it is trusted."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

LONGEST = 1 << 16
"""The most bytes of a body that are taken for the message of an error."""


class _Foreign(BaseModel):
    """What a server sends: types are checked, and keys that nothing here reads are left out."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class _Token(_Foreign):
    token: str
    bytes: list[Annotated[int, Field(ge=0, le=255)]] | None = None


class _Logprobs(_Foreign):
    content: list[_Token] | None = None


class _Message(_Foreign):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Foreign):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(_Foreign):
    prompt_tokens: int = Field(ge=0, le=2**40)
    completion_tokens: int = Field(ge=0, le=2**40)


class Completion(_Foreign):
    choices: list[_Choice] = Field(min_length=1)
    model: str | None = Field(None, max_length=500)
    usage: _Usage | None = None


class Problem(_Foreign):
    message: str = ""
    code: str | int | None = None
    param: str | None = None


class _Problems(_Foreign):
    error: Problem | str


def said(body: bytes) -> Problem:
    """What a server says of an error. A body of another form is taken as its message."""
    try:
        error = _Problems.model_validate_json(body).error
    except ValidationError:
        return Problem(message=body[:LONGEST].decode("utf-8", "replace"))
    return Problem(message=error) if isinstance(error, str) else error


def retry_after(text: str) -> float:
    """The seconds of a header Retry-After, which has seconds or a date; 0 for anything else."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return 0.0 if math.isnan(seconds) else max(0.0, seconds)
