"""An engine that asks a server with the chat interface of OpenAI, hosted or your own. It runs no weights: it teaches,
judges and is compared. A model with `openai:` as its source is always asked by it.

A prompt is the dialogue as JSON, since the server has the template. The interface cannot begin the assistant's turn. So
the server is told in words how to begin, and an answer that begins otherwise is an error of its example. So is an
answer that a content filter has ended, or that is longer than was asked for. A greedy request has no seed. A sampled
one has 31 bits of the prompt's seed, and it is the server's affair what it makes of it.

What a server has answered is kept and never asked for again (`_openai_kept`). So a run can be repeated from the
answers, though not by asking.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

from imprint.engines import Candidates, Pass, Prompt, Response, _openai_kept, failed
from imprint.engines._openai_kept import Answer, Kept, Purse
from imprint.engines._openai_wire import Client, Refused, Server
from imprint.models.chat_text import ChatText, Message
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.identity import canonical, read_object

CAN = frozenset({"generate"})
MOST_STOPS = 4
"""The most stop texts that a request may have. Answers are cut at all of them here."""
BEGIN = "Begin your reply with exactly the words below, and go on from there.\n\n{}"
OVERHEAD = 64
"""Tokens of a template that a message may take beside its bytes, and a dialogue beside its messages."""


def start(chain: list[Path], dtype: str, device: str, batch_size: int, ranks: int = 1) -> Engine:
    """The engine for the server that the manifest names. Number format and device are the server's affair."""
    spec = read_object(chain[0], "base_url", "openai")
    server = Server.of(chain[0].parent.name, spec["base_url"], spec["openai"])
    return Engine(server, batch_size, _openai_kept.ANSWERS)


class Engine:
    """A model on a server. `batch_size` prompts are asked at a call, as many at once as the limits allow."""

    limit: int | None = None
    model: Any = None

    def __init__(self, server: Server, batch_size: int, answers: Path) -> None:
        self.server, self.batch_size = server, batch_size
        self.name = f"openai {server.model} at {server.base_url}"
        self.passing = Pass()
        self.kept = Kept(server.base_url, server.model, answers)
        self._client = Client(server)
        self._lost = 0
        self._told: set[str | None] = {server.model}

    def render(self, messages: Sequence[Message], prefill: str = "") -> ChatText:
        """The dialogue as JSON. No text in it can be taken for the end of a turn."""
        return ChatText(canonical({"messages": list(messages), "prefill": prefill}))

    def tokens(self, text: str, breaks: tuple[int, ...] = ()) -> list[int]:
        """The bytes: no tokenizer makes more tokens of a text, and the server's is not known."""
        return list(text.encode())

    def generate(self, prompts: list[Prompt]) -> list[Response]:
        """The server's answers. A prompt that it refuses gets an error. Raises ImprintError where it answers nobody,
        where a limit of tokens could be passed (the answers so far are kept), and for prompts that cannot be sent."""
        requests = [self.request(prompt) for prompt in prompts]
        answers = self._answers(requests)
        self._tell([answer for answer in answers if isinstance(answer, Answer)])
        return [
            response(prompt, answer) if isinstance(answer, Answer) else failed(answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def loglikelihood(self, asked: list[Candidates]) -> list[list[Response]]:
        """Errors: a config that asks for it is refused."""
        return [[failed("the engine 'openai' has no likelihoods", len(one.text))] for one in asked]

    def request(self, prompt: Prompt) -> dict[str, Any]:
        """What is sent for a prompt, which is also what its answer is found by. Raises ImprintError where the interface
        has no way to say it: the arm's contexts are then not for servers."""
        if prompt.max_new_tokens < 1:
            raise ImprintError(f"max_new_tokens is {prompt.max_new_tokens}; write at least 1")
        messages, prefill = _dialogue(prompt)
        if not messages or (prefill and (prompt.opening or any(stop in prefill for stop in prompt.stop))):
            what = "the end of a turn that it begins itself" if messages else "text without turns"
            raise ImprintError(
                f"{self.server.where}: a server is asked with whole turns, and a context asks for {what}; take another "
                "context, or a model with weights"
            )
        request: dict[str, Any] = {
            "model": self.server.model,
            "messages": _told_to_begin(messages, prefill) if prefill else messages,
            "max_tokens": prompt.longest + _longest_of(prefill),
            "temperature": prompt.temperature,
        }
        if prompt.temperature > 0:
            request["seed"] = prompt.seed % 2**31
            if prompt.top_p < 1:
                request["top_p"] = prompt.top_p
        if stops := [stop for stop in prompt.stop if stop]:
            request["stop"] = stops[:MOST_STOPS]
        if prompt.opening:
            request["logprobs"] = True  # for the tokens, which say where the answer begins
        return request

    def _answers(self, requests: list[dict[str, Any]]) -> list[Answer | str]:
        """An answer to each request, or why there is none. Equal requests are sent once."""
        paths = [self.kept.path(request) for request in requests]
        distinct = dict(zip(paths, requests, strict=True))
        found: dict[Path, Answer | str] = {}

        def look() -> dict[Path, dict[str, Any]]:
            found.update({p: kept for p, r in distinct.items() if p not in found and (kept := self.kept.read(r))})
            return {path: request for path, request in distinct.items() if path not in found}

        if look():
            with self.kept.turn():
                if missing := look():  # another process may have asked meanwhile
                    found.update(self._ask(missing))
        return [found[path] for path in paths]

    def _ask(self, requests: dict[Path, dict[str, Any]]) -> dict[Path, Answer | str]:
        """Ask the server, several requests at a time, and keep what it answers. After an error that ends the job, the
        requests that are under way are awaited and kept."""
        limits, client = self.server.access.limits, self._client
        client.begin()
        begun = self._lost + (self.kept.cost() if limits.tokens is not None else 0)
        purse, kept_costs = Purse(limits.tokens, begun, self.server.where), list[int]()

        def ask(request: dict[str, Any]) -> Answer | str:
            try:
                answer = client.answer(request, self._most(request), purse)
                self.kept.write(request, answer)
            except Refused as refusal:
                return str(refusal)
            except BaseException:
                client.stop.set()
                raise
            kept_costs.append(answer.cost)
            return answer

        try:
            with ThreadPoolExecutor(limits.at_once) as threads:
                try:
                    asked = {path: threads.submit(ask, request) for path, request in requests.items()}
                    return {path: future.result() for path, future in asked.items()}
                except BaseException:
                    client.stop.set()
                    raise
        finally:
            self._lost += purse.spent - begun - sum(kept_costs)

    def _most(self, request: dict[str, Any]) -> int:
        """The most tokens that a request can cost."""
        messages = request["messages"]
        read = sum(len(message["role"].encode()) + len(message["content"].encode()) for message in messages)
        return read + OVERHEAD * (len(messages) + 1) + int(request["max_tokens"])

    def _tell(self, answers: list[Answer]) -> None:
        """Say in the job's log which model has answered, if it has another name, and how many answers are empty."""
        for name in dict.fromkeys(answer.model for answer in answers):
            if name not in self._told:
                self._told.add(name)
                who = "does not say which model answers" if name is None else f"answers as '{name}'"
                self._say(f"asked for '{self.server.model}', the server {who}")
        if empty := sum(not answer.text.strip() for answer in answers):
            self._say(f"{empty} of {len(answers)} answers are empty")

    def _say(self, what: str) -> None:
        print(shown(f"imprint: {self.server.where}: {what}"), file=sys.stderr, flush=True)


def _dialogue(prompt: Prompt) -> tuple[list[Message], str]:
    """The messages of a prompt, and how the assistant's turn begins."""
    dialogue = json.loads(prompt.text)
    return dialogue["messages"], dialogue["prefill"]


def _told_to_begin(messages: list[Message], prefill: str) -> list[Message]:
    """The messages, in which the user says at last how the reply is to begin."""
    words, last = BEGIN.format(prefill.strip()), messages[-1]
    if last["role"] == "user":
        return [*messages[:-1], {"role": "user", "content": f"{last['content']}\n\n{words}"}]
    return [*messages, {"role": "user", "content": words}]


def _longest_of(prefill: str) -> int:
    """The most tokens that the beginning of a reply can have."""
    return len(prefill.encode())


def response(prompt: Prompt, answer: Answer) -> Response:
    """A server's answer as the response to a prompt: without the words that it was told to begin with, cut at its stop
    texts, and at the answer's own limit of tokens where it begins behind an opening text."""
    total, begun = answer.response_tokens, _dialogue(prompt)[1]

    def wrong(why: str) -> Response:
        return Response(None, None, answer.prompt_tokens, total, None, answer.seconds, why)

    if answer.finish_reason not in ("stop", "length"):
        if answer.finish_reason == "content_filter":
            return wrong("the server's content filter has ended the answer (content_filter)")
        return wrong(f"the server does not say that the answer is whole (finish_reason {answer.finish_reason!r:.80})")
    if total is not None and total > (most := prompt.longest + _longest_of(begun)):
        return wrong(f"the server has written {total} tokens, and at most {most} were asked for")
    text, reason, own = answer.text, answer.finish_reason, total
    if begun:
        if not text.lstrip().startswith(begun.strip()):
            return wrong(f"the answer does not begin with the words that were asked for, {begun.strip()!r:.80}")
        text = text.lstrip().removeprefix(begun.strip())
    if prompt.opening:
        if answer.pieces is None or total is None:
            return wrong("the server tells no tokens (logprobs), so where the answer begins and ends is not known")
        opened = _opened(prompt, answer.pieces)
        kept = min(prompt.kept(opened), prompt.limit(opened))
        if total > kept:
            text, reason = _text(answer.pieces[:kept]), "length"
        own = min(total, kept) - (opened or 0)
    ends = [place for stop in prompt.stop if (place := text.find(stop)) >= 0]
    if ends:
        text, reason = text[: min(ends)], "stop"
    return Response(text, reason, answer.prompt_tokens, total, None, answer.seconds, answer_tokens=own)


def _opened(prompt: Prompt, pieces: list[list[int]]) -> int | None:
    """The number of tokens up to the end of the opening text; None where it does not come in time."""
    data = b"".join(map(bytes, pieces))
    start = data.find(prompt.opening.encode())
    ends = accumulate(map(len, pieces[: prompt.limit(None)]))
    end = start + len(prompt.opening.encode())
    return next((n for n, size in enumerate(ends, 1) if size >= end), None) if start >= 0 else None


def _text(pieces: list[list[int]]) -> str:
    return b"".join(map(bytes, pieces)).decode("utf-8", "replace")
