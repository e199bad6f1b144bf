"""What the engines share that run weights and have the model's tokenizer: which prompts they refuse, where a response
ends, and what its text is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imprint.engines import Candidates, Prompt, Response, failed
from imprint.models import chat_text
from imprint.models.chat_text import ChatText, Message
from imprint.runtime.errors import ImprintError


class Tokenized:
    """An engine's tokenizer and limits. `config` and `generation_config` are the model's, as transformers has them."""

    def __init__(self, tokenizer: Any, config: Any, generation_config: Any) -> None:
        self.tokenizer = tokenizer
        self.limit: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
        ends = generation_config.eos_token_id
        self.ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    def render(self, messages: Sequence[Message], prefill: str = "") -> ChatText:
        """The prompt of a dialogue whose assistant's turn begins with `prefill`, as `chat_text.render` says."""
        return chat_text.render(self.tokenizer, messages, prefill)

    def tokens(self, text: str, breaks: tuple[int, ...] = ()) -> list[int]:
        """Token ids of rendered text, as `chat_text.tokens` says."""
        return chat_text.tokens(self.tokenizer, text, breaks)

    def refusal(self, prompt: int, more: int) -> Response | None:
        """The error for a prompt of `prompt` tokens to be continued by up to `more`, or None if both fit."""
        if prompt == 0:
            return failed("the prompt is empty", 0)
        if self.limit is not None and prompt + more > self.limit:
            return failed(
                f"the prompt has {prompt} tokens and up to {more} more are asked for, but the model has {self.limit} "
                "positions",
                prompt,
            )
        return None

    def options(self, asked: list[Candidates]) -> tuple[list[list[int]], list[list[list[int]]], list[list[Response]]]:
        """For each prompt whose continuations are scored: its tokens, those of its continuations, and the answers so
        far. These are empty, or a single error where the prompt cannot be read or does not fit."""
        heads, tails, answers = list[list[int]](), list[list[list[int]]](), list[list[Response]]()
        for candidates in asked:
            head, tail = list[int](), list[list[int]]()
            try:
                text = ChatText(candidates.text, candidates.breaks)
                head, tail = chat_text.continued(self.tokenizer, text, candidates.continuations)
            except ImprintError as error:
                refusal: Response | None = failed(str(error))
            else:
                if not tail or not all(tail):
                    refusal = failed("no continuations, or an empty one", len(head))
                else:
                    refusal = self.refusal(len(head), max(map(len, tail)))
            heads.append(head)
            tails.append(tail)
            answers.append([] if refusal is None else [refusal])
        return heads, tails, answers


def scored_options(
    asked: Candidates, prompt: int, tails: list[list[int]], sums: list[float], share: float
) -> list[Response]:
    """The responses to the continuations of a prompt of `prompt` tokens. `sums` are their log-likelihoods, `share` are
    the seconds of each."""
    return [
        Response(text, None, prompt, len(tail), total, share, answer_tokens=len(tail))
        for text, tail, total in zip(asked.continuations, tails, sums, strict=True)
    ]


class Row:
    """One sequence that is being written. The first end token, a stop text or the prompt's limit ends it."""

    def __init__(self, engine: Tokenized, prompt: Prompt) -> None:
        self.engine, self.prompt = engine, prompt
        self.tokens: list[int] = []
        self.logprob = 0.0
        self.reason: str | None = None
        self.opened: int | None = None
        """The number of tokens up to the end of the prompt's opening text; None while it has not come."""
        # A text spans no more tokens than it has bytes. A few more cover characters that are split over tokens.
        self.window = max(len(text.encode()) for text in (*prompt.stop, prompt.opening)) + 4
        if prompt.max_new_tokens < 1:
            raise ImprintError(f"max_new_tokens is {prompt.max_new_tokens}; write at least 1")

    def append(self, token: int, logprob: float) -> None:
        """Take the next token, and set `reason` if it ends the response."""
        self.tokens.append(token)
        self.logprob += logprob
        awaited = self.prompt.opening if self.opened is None else ""
        tail = self._decode(self.tokens[-self.window :]) if self.prompt.stop or awaited else ""
        if awaited and awaited in tail:
            self.opened = len(self.tokens)
        if token in self.engine.ends or any(text in tail for text in self.prompt.stop):
            self.reason = "stop" if len(self.tokens) <= self.prompt.kept(self.opened) else "length"
        elif len(self.tokens) == self.prompt.limit(self.opened):
            self.reason = "length"

    @property
    def answer_tokens(self) -> int:
        """The tokens of the answer, with the end token or stop text."""
        return min(len(self.tokens), self.prompt.kept(self.opened)) - (self.opened or 0)

    def _decode(self, tokens: list[int]) -> str:
        decode = self.engine.tokenizer.decode
        return str(decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def text(self) -> str:
        """The response, cut before the first stop text in it."""
        kept = self.tokens[: self.prompt.kept(self.opened)]
        text = self._decode([token for token in kept if token not in self.engine.ends])
        ends = [place for stop in self.prompt.stop if (place := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text

    def response(self, prompt: int, share: float) -> Response:
        """The response to a prompt of `prompt` tokens, once it has ended. `share` are its seconds."""
        return Response(
            self.text(),
            self.reason,
            prompt,
            len(self.tokens),
            self.logprob,
            share,
            answer_tokens=self.answer_tokens,
        )
