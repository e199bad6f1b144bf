"""An engine that says what the user said last. It reads no weights, so a whole experiment can be tried with it in no
time. A token is a character, a prompt is the dialogue as JSON instead of the model's template, and since nothing else
could be said, every text has the log-probability 0 and every draw is the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imprint.engines import Candidates, Pass, Prompt, Response, failed
from imprint.models.chat_text import ChatText, Message
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import canonical

CAN = frozenset({"generate"})


def start(chain: list[Path], dtype: str, device: str, batch_size: int, ranks: int = 1) -> Echo:
    """The engine, whatever the weights are, and wherever it is to run."""
    return Echo(batch_size)


class Echo:
    """No model."""

    name = "echo"
    limit: int | None = None
    model: Any = None

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.passing = Pass()

    def render(self, messages: Sequence[Message], prefill: str = "") -> ChatText:
        """The dialogue as JSON. No text in it can be taken for the end of a turn."""
        return ChatText(canonical({"messages": list(messages), "prefill": prefill}))

    def tokens(self, text: str, breaks: tuple[int, ...] = ()) -> list[int]:
        """A token a character."""
        return [ord(character) for character in text]

    def generate(self, prompts: list[Prompt]) -> list[Response]:
        """What the user said last in each dialogue, cut as any response is; an error where no user has spoken. Raises
        ImprintError for a prompt that asks for less than one token."""
        return [_echo(prompt) for prompt in prompts]

    def loglikelihood(self, asked: list[Candidates]) -> list[list[Response]]:
        """Errors: a config that asks for it is refused."""
        return [[failed("the engine 'echo' has no likelihoods", len(one.text))] for one in asked]


def _echo(prompt: Prompt) -> Response:
    if prompt.max_new_tokens < 1:
        raise ImprintError(f"max_new_tokens is {prompt.max_new_tokens}; write at least 1")
    messages: list[Message] = json.loads(prompt.text)["messages"]
    said = next((message["content"] for message in reversed(messages) if message["role"] == "user"), None)
    if said is None:
        return failed("the dialogue has no user's turn to echo", len(prompt.text))
    stops = [stop for stop in prompt.stop if stop in said]
    # It ends with an end token, or as soon as a stop text is whole; both count, and neither is part of the text.
    ends = min([len(said) + 1, *(max(1, said.find(stop) + len(stop)) for stop in stops)])
    opened = _opened(said, prompt, ends)
    kept, tokens = prompt.kept(opened), min(ends, prompt.limit(opened))
    written = said[: min(tokens, kept)]
    text = written[: min((place for stop in stops if (place := written.find(stop)) >= 0), default=len(written))]
    reason = "stop" if ends == tokens <= kept else "length"
    answer = min(tokens, kept) - (opened or 0)
    return Response(text, reason, len(prompt.text), tokens, 0.0, 0.0, answer_tokens=answer)


def _opened(said: str, prompt: Prompt, ends: int) -> int | None:
    """The number of tokens up to the end of the opening text, or None if the response ends before it is complete."""
    if not prompt.opening or prompt.opening not in said:
        return None
    opened = said.find(prompt.opening) + len(prompt.opening)
    return opened if opened <= min(ends, prompt.limit(None)) else None
