"""A policy: an arm that answers requests. It holds an engine with the arm's weights and hooks, and the contexts and the
decoder between an example and the engine. All code that prompts a model uses a policy."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from imprint.engines import Candidates, Prompt, Response, Running
from imprint.models import chains
from imprint.policies import answers
from imprint.policies.dialogue import Layer, Outcome, Request, Turns, chain, layer, one
from imprint.runtime import job_record, plugins
from imprint.runtime.errors import shown
from imprint.runtime.plugins import Plug, Strict
from imprint.tables.inputs import Read


class Spec(Strict):
    """How an arm answers: everything but its weights. `dtype` is the config's; "auto" leaves the choice to the
    device."""

    engine: str
    dtype: str
    batch_size: int
    hooks: list[Plug] = Field([])
    contexts: list[Plug] = Field([])
    decode: Plug | None = None


@dataclass(frozen=True)
class Draw:
    """The limit of an answer's tokens, the temperature and the nucleus for requests that do not set them."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Policy:
    """An arm that answers requests."""

    engine: Running
    contexts: list[Plug]
    decode: Plug | None
    inputs: Read

    def turns(self, row: dict[str, Any], request: Request, environment: Plug | None = None) -> Turns:
        """The dialogue of one example, whose requests are for the engine. It begins with `request`, or with the
        environment's own requests if there is an environment."""
        layers = [layer("contexts", plug, row, self.inputs) for plug in self.contexts]
        if self.decode is not None:
            layers.append(_drawing(layer("decoders", self.decode, row, self.inputs)))
        if environment is None:
            return chain(one(request), layers)
        module, settings = environment.open("environments")
        return chain(_answers_only(module.turns(row, settings, self.inputs), self.contexts), layers)

    def prompt_for(self, request: Request, draw: Draw, seed: int = 0) -> Prompt | Candidates:
        """The engine's prompt for a request: Candidates if the request has options, else a Prompt. All messages become
        prompts here. Raises ValueError for a request without options and without a limit of tokens, and ImprintError
        for messages that the template refuses."""
        text, breaks = self.engine.render(request.messages, request.prefill)
        if request.options:
            return Candidates(text, request.options, breaks)
        longest = request.max_new_tokens or draw.max_new_tokens
        if not longest:
            raise ValueError("a request that is written out must say max_new_tokens when options are scored")
        temperature = draw.temperature if request.temperature is None else request.temperature
        top_p = draw.top_p if request.top_p is None else request.top_p
        return Prompt(
            text, longest, tuple(request.stop), temperature, top_p, seed, breaks, request.opening, request.before
        )


def _drawing(decoder: Layer) -> Layer:
    """The decoder as a layer that skips requests with options and requests that set a temperature. Options are scored
    and not drawn. A context sets the temperature of its own intermediate requests, such as the greedy one for a role
    that the model writes for itself."""
    return lambda request: one(request) if request.options or request.temperature is not None else decoder(request)


def _answers_only(dialogue: Turns, contexts: list[Plug]) -> Turns:
    """An environment's dialogue, in which the environment receives only the answer in each response, as the contexts
    read it. If its outcome is one of these answers, the outcome gets the full response instead."""
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


def ranks(spec: Spec, manifests: list[Path], gpus: int) -> int:
    """How many of a job's GPUs an arm answers on, with a process on each; they stand in the job's record. Hooks need a
    model in one process, so an arm with hooks answers on one."""
    used: int = 1 if spec.hooks else plugins.load("engines", spec.engine).ranks(manifests, gpus)
    if used < gpus:
        print(shown(f"imprint: of {gpus} GPUs, {used} can share the answers (docs/scaling.md)"), file=sys.stderr)
    job_record.add({"ranks": used})
    return used


def where(spec: Spec, device: str, ranks: int) -> tuple[str, ...]:
    """Where an arm answers, as far as its texts may depend on it by rounding."""
    return (device, chains.dtype_of(spec.dtype, device), *([f"{ranks} ranks"] if ranks > 1 else []))


def start(spec: Spec, manifests: list[Path], device: str, inputs: Read | None = None, ranks: int = 1) -> Policy:
    """Start an arm: the engine gets the weights of a chain of manifests, and the hooks are installed in its model.
    `inputs` are for the arm's contexts, hooks and decoder. The engine runs on so many `ranks`, one without hooks."""
    dtype = chains.dtype_of(spec.dtype, device)
    engine = plugins.load("engines", spec.engine).start(manifests, dtype, device, spec.batch_size, ranks)
    inputs = inputs or Read()
    for plug in spec.hooks:
        module, settings = plug.open("hooks")
        module.install(engine.model, settings, inputs, engine.passing)
    return Policy(engine, spec.contexts, spec.decode, inputs)


def over(model: Any, tokenizer: Any, batch_size: int, contexts: list[Plug], inputs: Read | None = None) -> Policy:
    """An arm during its fit, over the torch module `model` that is in training. The engine is `transformers`."""
    engine = plugins.load("engines", "transformers").Engine(model, tokenizer, batch_size)
    return Policy(engine, contexts, None, inputs or Read())
