"""A dialogue: one example's exchange with a policy.

Contexts, decoders and environments are generators. A generator yields a list of requests, receives the list of their
responses, and returns an `Outcome`. Generators nest in layers: the inner layer gets one request of the outer layer, and
the outer layer receives the inner layer's outcome as the response.

    environment (of the eval)  ->  contexts (of the arm), in order  ->  decoder (of the arm)  ->  engine

`chain` turns the nested layers into one generator, whose requests are for the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from imprint.engines import Response
from imprint.models import chat_text
from imprint.models.chat_text import Message
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.tables.inputs import Read


@dataclass(frozen=True)
class Request:
    """One call to a model: the messages so far, and how the assistant's next turn begins and ends.

    `prefill` opens the assistant's turn; it is part of the prompt, not of the response. The turn ends at one of `stop`,
    or at its limit of tokens. The eval sets `max_new_tokens`, `temperature` and `top_p` where they are None. A request
    with `options` writes nothing: it asks for the log-likelihood of each option as the rest of the turn.

    `opening` is the text behind which the answer begins in the turn, if a context has asked for something before the
    answer. This may have `before` tokens, and the answer `max_new_tokens` (`imprint.engines.Prompt`)."""

    messages: list[Message]
    prefill: str = ""
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    options: tuple[str, ...] = ()
    opening: str = ""
    before: int = 0

    def opened_by(self, opening: str, before: int) -> Request:
        """The same request by a context that asks for up to `before` tokens in front of the answer, which then begins
        behind `opening`. What other contexts want between the two has its own tokens, and their text opens the
        answer."""
        return replace(self, opening=self.opening or opening, before=self.before + before)


@dataclass(frozen=True)
class Outcome:
    """How a dialogue ends: the text that is scored, and a state (plain JSON) that a score may read in `row["state"]`.
    `response` is the response that holds the text, or None if no single response holds it."""

    text: str
    state: Any = None
    response: Response | None = None

    @classmethod
    def of(cls, response: Response) -> Outcome:
        """The outcome of a dialogue that ends with `response`, unchanged."""
        return cls(response.text or "", None, response)

    def as_response(self) -> Response:
        """What an outer layer receives: the response that holds the text, or a new response with the text alone."""
        if self.response is not None and self.response.text == self.text:
            return self.response
        return Response(self.text, "stop", None, None, None, 0.0)


NOTHING = Outcome.of(Response("", "stop", 0, 0, 0.0, 0.0))
"""The outcome of a request that was not put to a model."""

Turns = Generator[list[Request], list[Response], Outcome | None]
"""A running layer. It returns None if its last list held a single request whose response is the outcome."""

Layer = Callable[[Request], Turns]
"""A context or decoder, bound to its settings, row and inputs."""


def one(request: Request) -> Turns:
    """A dialogue of a single request."""
    yield [request]
    return None


def step(dialogue: Turns, answers: Sequence[Outcome] | None) -> list[Request] | Outcome:
    """Run a dialogue to its next requests (at least one) or to its outcome. `answers` are the outcomes of its last
    requests, None at its beginning. Raises ImprintError for a dialogue that goes on without a request, or that ends
    without saying which response counts."""
    try:
        requests = next(dialogue) if answers is None else dialogue.send([answer.as_response() for answer in answers])
    except StopIteration as end:
        if end.value is not None:
            outcome: Outcome = end.value
            return outcome
        if not answers:
            raise ImprintError("a dialogue ended without a request") from None
        if len(answers) > 1:
            raise ImprintError(
                f"a dialogue ended after {len(answers)} responses at once without saying which one counts"
            ) from None
        return answers[0]
    if not requests:
        raise ImprintError("a dialogue went on without a request")
    return requests


def chain(outer: Turns, layers: Sequence[Layer]) -> Turns:
    """The dialogue `outer`, with each of its requests put through the layers in order."""
    if not layers:
        return (yield from outer)
    inner, *deeper = layers
    try:
        following = step(outer, None)
        while not isinstance(following, Outcome):
            answers = yield from _side_by_side([chain(inner(request), deeper) for request in following])
            following = step(outer, answers)
        return following
    finally:
        outer.close()


def _side_by_side(dialogues: Sequence[Turns]) -> Generator[list[Request], list[Response], list[Outcome]]:
    """Run several dialogues at once. The open dialogues' requests form one list, so that one batch can answer them all.
    Returns the outcomes in the order of the dialogues."""
    outcomes: dict[int, Outcome] = {}
    answers: dict[int, list[Outcome] | None] = dict.fromkeys(range(len(dialogues)))
    try:
        while True:
            steps = {place: step(dialogues[place], last) for place, last in answers.items()}
            outcomes |= {place: outcome for place, outcome in steps.items() if isinstance(outcome, Outcome)}
            pending = {place: requests for place, requests in steps.items() if not isinstance(requests, Outcome)}
            if not pending:
                return [outcomes[place] for place in range(len(dialogues))]
            responses = iter((yield [request for requests in pending.values() for request in requests]))
            answers = {place: [Outcome.of(next(responses)) for _ in requests] for place, requests in pending.items()}
    finally:
        for dialogue in dialogues:
            dialogue.close()


def single(contexts: list[Plug], row: dict[str, Any], request: Request, inputs: Read) -> Request:
    """The one request that contexts make of an example, for fits. Raises ImprintError if they make none or several."""
    turns = chain(one(request), [layer("contexts", plug, row, inputs) for plug in contexts])
    try:
        requests = step(turns, None)
        if isinstance(requests, Outcome):
            number = "no"
        elif len(requests) > 1 or not isinstance(step(turns, [NOTHING]), Outcome):
            number = "more than one"
        else:
            return requests[0]
    finally:
        turns.close()
    names = ", ".join(plug.name for plug in contexts)
    raise ImprintError(f"context '{names}' makes {number} request; write another context under `fit`")


def prompt_tokens(tokenizer: Any, request: Request) -> list[int]:
    """The token ids of a request's prompt, for fits that read prompts themselves."""
    return chat_text.tokens(tokenizer, *chat_text.render(tokenizer, request.messages, request.prefill))


def layer(kind: str, plug: Plug, row: dict[str, Any], inputs: Read) -> Layer:
    """A context or decoder with its settings, bound to one example. It does not see the example's reference."""
    module, settings = plug.open(kind)
    visible = {key: value for key, value in row.items() if key != "reference"}
    return lambda request: module.turns(request, visible, settings, inputs)
