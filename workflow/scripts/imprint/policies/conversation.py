"""One dialogue with an arm, for `make ask`."""

from __future__ import annotations

from pathlib import Path

from imprint.draws import seed_of
from imprint.engines import Candidates, Prompt, Response, Running
from imprint.models.chat_text import Message
from imprint.policies import policy
from imprint.policies.dialogue import Outcome, Request, step
from imprint.policies.policy import Draw, response_of
from imprint.tables.inputs import Read


def ask(
    spec: policy.Spec, manifests: list[Path], inputs: Read, messages: list[Message], max_new_tokens: int, device: str
) -> list[Response]:
    """Put messages to an arm as it is applied, greedily unless its contexts or decoder set a temperature.

    Returns the responses in order, with the answer last. The answer is appended once more if another response came
    after it, or if several responses were put together to make it. A failed response ends the list."""
    arm = policy.start(spec, manifests, device, inputs)
    draw = Draw(max_new_tokens)
    turns = arm.turns({"example_id": "", "messages": messages, "fields": {}, "strata": {}}, Request(messages))
    transcript: list[Response] = []
    answers: list[Outcome] | None = None
    try:
        while not isinstance(following := step(turns, answers), Outcome):
            prompts = [
                arm.prompt_for(request, draw, seed_of(len(transcript), place))
                for place, request in enumerate(following)
            ]
            responses = _responses(arm.engine, prompts)
            transcript += responses
            if any(response.error is not None for response in responses):
                return transcript
            answers = [Outcome.of(response) for response in responses]
    finally:
        turns.close()
    answer = following.as_response()
    return transcript if transcript and transcript[-1] is answer else [*transcript, answer]


def _responses(engine: Running, prompts: list[Prompt | Candidates]) -> list[Response]:
    """A response to each prompt, in order. All prompts to continue go to the engine at once, as do all to score."""
    written = iter(engine.generate([prompt for prompt in prompts if isinstance(prompt, Prompt)]))
    scored = iter(engine.loglikelihood([prompt for prompt in prompts if isinstance(prompt, Candidates)]))
    return [next(written) if isinstance(prompt, Prompt) else response_of(next(scored)) for prompt in prompts]
