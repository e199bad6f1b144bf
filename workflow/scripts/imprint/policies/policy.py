"""A policy: an arm that can be asked. It holds an engine with the arm's weights and hooks, and the contexts and the
decoder between an example and the engine. All code that puts words to a model does so through a policy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from imprint.engines import Candidates, Prompt, Response, Running
from imprint.models import chains
from imprint.policies import answers
from imprint.policies.dialogue import Layer, Outcome, Request, Turns, chain, layer, one
from imprint.runtime import plugins
from imprint.runtime.plugins import Plug, Strict
from imprint.tables.inputs import Read


class Spec(Strict):
    """Everything but the weights that an arm is asked with. `dtype` is the config's, where "auto" leaves the choice to
    the device."""

    engine: str
    dtype: str
    batch_size: int
    hooks: list[Plug] = Field([])
    contexts: list[Plug] = Field([])
    decode: Plug | None = None


@dataclass(frozen=True)
class Draw:
    """How a request is answered that sets no limit, temperature or nucleus itself."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Policy:
    """An arm that can be asked."""

    engine: Running
    contexts: list[Plug]
    decode: Plug | None
    inputs: Read

    def turns(self, row: dict[str, Any], request: Request, environment: Plug | None = None) -> Turns:
        """The dialogue of one example, whose requests are for the engine. It begins with `request`; an environment
        begins it with its own requests instead."""
        layers = [layer("contexts", plug, row, self.inputs) for plug in self.contexts]
        if self.decode is not None:
            layers.append(_drawing(layer("decoders", self.decode, row, self.inputs)))
        if environment is None:
            return chain(one(request), layers)
        module, settings = environment.open("environments")
        return chain(_answers_only(module.turns(row, settings, self.inputs), self.contexts), layers)

    def asked(self, request: Request, draw: Draw, seed: int = 0) -> Prompt | Candidates:
        """The prompt that the engine gets for a request. Messages become a prompt here and nowhere else. Raises
        ValueError for a request to write without a limit, and ImprintError for messages that the template refuses."""
        text, breaks = self.engine.render(request.messages, request.prefill)
        if request.options:
            return Candidates(text, request.options, breaks)
        longest = request.max_new_tokens or draw.max_new_tokens
        if not longest:
            raise ValueError("a request that is written out must say max_new_tokens when options are scored")
        temperature = draw.temperature if request.temperature is None else request.temperature
        top_p = draw.top_p if request.top_p is None else request.top_p
        return Prompt(text, longest, tuple(request.stop), temperature, top_p, seed, breaks)


def _drawing(decoder: Layer) -> Layer:
    """The decoder, for requests that leave open how they are drawn. Requests with options or with a temperature of
    their own pass by it: options are scored, and a role that the model writes for itself is drawn greedily."""
    return lambda request: one(request) if request.options or request.temperature is not None else decoder(request)


def _answers_only(dialogue: Turns, contexts: list[Plug]) -> Turns:
    """An environment's dialogue in which it hears only the answer in each response, as the contexts read it. If its
    outcome is one of these answers, the result is the outcome with the full response."""
    pairs: list[tuple[Response, Response]] = []
    try:
        requests = next(dialogue)
        while True:
            responses = yield requests
            shortened = [
                replace(response, text=answers.answer(contexts, response.text or "")[0]) for response in responses
            ]
            pairs += zip(shortened, responses, strict=True)
            requests = dialogue.send(shortened)
    except StopIteration as end:
        outcome: Outcome | None = end.value
        for answer, response in pairs:
            if outcome is not None and outcome.response is answer and outcome.text == answer.text:
                return Outcome(response.text or "", outcome.state, response)
        return outcome
    finally:
        dialogue.close()


def response_of(responses: list[Response]) -> Response:
    """The one response that a dialogue receives for a request: the likeliest option, or the only response."""
    return max(responses, key=lambda response: response.logprob_sum or 0.0)


def start(spec: Spec, manifests: list[Path], device: str, inputs: Read | None = None) -> Policy:
    """Open an arm: an engine with the weights of a chain of manifests and the arm's hooks in its model, and the arm's
    contexts and decoder."""
    dtype = chains.dtype_of(spec.dtype, device)
    engine = plugins.load("engines", spec.engine).start(manifests, dtype, device, spec.batch_size)
    inputs = inputs or Read()
    for plug in spec.hooks:
        module, settings = plug.open("hooks")
        module.install(engine.model, settings, inputs)
    return Policy(engine, spec.contexts, spec.decode, inputs)


def over(model: Any, tokenizer: Any, batch_size: int, contexts: list[Plug], inputs: Read | None = None) -> Policy:
    """An arm in the middle of its fit. `model` is its torch module; the engine is the one that runs such a module."""
    engine = plugins.load("engines", "transformers").Engine(model, tokenizer, batch_size)
    return Policy(engine, contexts, None, inputs or Read())
