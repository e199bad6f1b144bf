"""Engines: programs that run a model. An engine takes rendered prompts and gives back responses; it knows nothing of
examples, arms or evals. An engine module says in `CAN` what it can do, and its `start` gives a `Running` engine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from imprint.models.chat_text import ChatText, Message
from imprint.runtime import plugins

ABILITIES = ("generate", "loglikelihood", "hooks", "weights", "sample")
"""The abilities of engines, in this order: write responses; say how likely given texts are; let hooks into the model
(`Running.model` is a torch module, and the engine is `Hooked`); run weights that are on disk, so that arms of the model
can be fitted; draw for a fit whose weights change (the module has a `sampler`, which gives a `Sampling`)."""

Positions = Literal["all", "prompt", "last_prompt", "written"]
"""Tokens of a pass: all of them, those of the prompt, the prompt's last one, those that follow the prompt."""


@dataclass(frozen=True)
class Prompt:
    """A text to continue, rendered by the chat template, and the way to continue it. `temperature` 0 is greedy. `seed`
    drives the sampling of this prompt alone, so that a response does not depend on the rest of the batch. A response
    ends at the model's end token, before one of `stop`, or at its limit of tokens. No special token lies across one of
    `breaks` (`imprint.models.chat_text`).

    With an `opening`, the answer in a response is the text behind the first place of this text. The answer may have
    `max_new_tokens`. The opening text must be complete within the first `before` tokens. A response in which it is not
    is an answer from its first token on, so all of it may have `max_new_tokens`; what exceeds them is cut off."""

    text: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    breaks: tuple[int, ...] = ()
    opening: str = ""
    before: int = 0

    @property
    def longest(self) -> int:
        """The most tokens that can be generated."""
        return self.before + self.max_new_tokens

    def limit(self, opened: int | None) -> int:
        """The number of generated tokens at which a response has to end. `opened` is the number of tokens up to the end
        of the opening text, or None while it has not come."""
        if opened is None:
            return max(self.before, self.max_new_tokens)
        return self.max_new_tokens + (opened if opened <= self.before else 0)

    def kept(self, opened: int | None) -> int:
        """The most tokens that the text of a response is made of."""
        return self.max_new_tokens if opened is None else self.longest


@dataclass(frozen=True)
class Candidates:
    """A prompt and its continuations, whose likelihoods are wanted. `breaks` are the prompt's; the continuations hold
    no special tokens."""

    text: str
    continuations: tuple[str, ...]
    breaks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Response:
    """What a model said. `finish_reason` is "stop" or "length". `response_tokens` and `logprob_sum` (nats, temperature
    1) count all generated tokens: also the end token and a stop text, before which `text` ends. For a continuation to
    score they count its own tokens, and `finish_reason` is None. `seconds` is an equal share of the batch's wall time.
    `error` says why there is no response. `answer_tokens` are those of `response_tokens` that the answer has: the
    tokens behind the prompt's opening text, or all that were kept where this text has not come. They are None where
    `response_tokens` are None."""

    text: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    response_tokens: int | None
    logprob_sum: float | None
    seconds: float
    error: str | None = None
    answer_tokens: int | None = None


def failed(error: str, prompt_tokens: int | None = None) -> Response:
    """The response to a prompt that got no answer; `error` says why."""
    return Response(None, None, prompt_tokens, None, None, 0.0, error)


class Pass:
    """The forward pass that an engine is about to make, as its hooks see it. An engine with the ability "hooks" calls
    `begin` before every pass.

    Columns hold tokens of prompts, or tokens that follow a prompt: drawn ones, and those of a continuation that is
    scored. The first token behind a prompt follows from the prompt's last position. So what a hook changes at the
    positions "written" acts from the second such token on, in drawing and in scoring alike."""

    def __init__(self) -> None:
        self.real: Any = None
        """Rows x columns, False on padding."""
        self.written = self.ends = False

    def begin(self, real: Any, written: bool, ends: bool) -> None:
        """`real`: rows x columns, False on padding. `written`: the columns follow prompts. `ends`: the last column is
        the last one of the prompts, which are padded on the left."""
        self.real, self.written, self.ends = real, written, ends

    def at(self, positions: Positions) -> Any:
        """Rows x columns, True where the pass has tokens of the positions; None if it has none of them."""
        if positions != "all" and self.written != (positions == "written"):
            return None
        if positions != "last_prompt":
            return self.real
        if not self.ends:
            return None
        last = self.real.clone()
        last[:, :-1] = False
        return last


class Running(Protocol):
    """An engine at work on the weights of one arm."""

    name: str
    """Engine, version, number format and device, for the table of generations."""
    batch_size: int
    """Number of sequences that are answered together. In bf16 another number may give another text."""
    limit: int | None
    """Most tokens that prompt and response may have together, or None if no limit is known."""
    model: Any
    """The torch module of an engine that has the ability "hooks", else None."""
    passing: Pass
    """The pass that the model makes, for hooks."""

    def render(self, messages: Sequence[Message], prefill: str = "") -> ChatText:
        """The prompt of a dialogue whose assistant's turn begins with `prefill`. Raises ImprintError for a dialogue
        that the model's chat template refuses."""

    def tokens(self, text: str, breaks: tuple[int, ...] = ()) -> list[int]:
        """Token ids of rendered text."""

    def generate(self, prompts: list[Prompt]) -> list[Response]:
        """One response to each prompt, in order; a prompt that cannot be answered gets a response with `error`."""

    def loglikelihood(self, asked: list[Candidates]) -> list[list[Response]]:
        """For each prompt, a response to each continuation, in order, or a single response with `error`."""


class Hooked(Running, Protocol):
    """An engine with the ability "hooks"."""

    def read(self, texts: list[ChatText]) -> Iterator[list[int]]:
        """Read rendered prompts without an answer, for hooks that record. Yields the indices of the prompts of a batch
        after the batch's last pass; the rows of its passes are in this order. Raises ImprintError for a prompt that
        does not fit into the model's positions."""


class Drawn(Protocol):
    """A sequence that an engine has written. `tokens` are all that were generated, with their `logprob` (nats,
    temperature 1); `reason` is "stop" or "length"."""

    tokens: list[int]
    logprob: float
    reason: str | None

    def text(self) -> str:
        """The response, which ends before a stop text."""


class Sampling(Running, Protocol):
    """An engine with the ability "sample"."""

    def renew(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Take over weights by the names of the model's parameters. The first time all of them come, later those that
        have changed."""

    def decode(self, prompts: list[Prompt], tokens: list[list[int]]) -> Sequence[Drawn]:
        """What follows each prompt, whose token ids are `tokens`. All prompts fit."""


class Engine(plugins.Contract):
    """What an engine module defines."""

    Settings = plugins.Strict  # all engines have the same keys under `engine:` in the config

    CAN: frozenset[str]
    """The engine's abilities, out of ABILITIES."""

    @staticmethod
    @abstractmethod
    def start(chain: list[Path], dtype: str, device: str, batch_size: int, ranks: int = 1) -> Running:
        """Load the weights that a chain of manifests names (`imprint.models.chains`), on as many GPUs as `ranks`. An
        engine on several of them has no model in this process, and so no hooks."""

    @staticmethod
    def sampler(chain: list[Path], dtype: str, device: str, sequences: int, tokens: int) -> Sampling:
        """The engine beside a fit that starts from a chain of manifests: it draws so many sequences together, each of
        up to `tokens` behind its prompt. Only engines with the ability "sample" define it."""
        raise NotImplementedError

    @staticmethod
    def ranks(chain: list[Path], gpus: int) -> int:
        """How many of a job's GPUs the engine uses for such a chain, with one process on each."""
        return 1


CONTRACT = Engine
