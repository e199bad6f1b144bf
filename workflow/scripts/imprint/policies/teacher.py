"""A teacher or judge: an arm that another arm's job asks, without the contexts that it is evaluated under."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from imprint.draws import seed_of
from imprint.engines import Prompt, Response
from imprint.policies import policy, shards
from imprint.policies.dialogue import Request
from imprint.policies.policy import Draw
from imprint.runtime import progress

Ask = Callable[..., list[Response]]


def asker(spec: policy.Spec, manifests: list[Path], folder: Path, device: str, ranks: int = 1) -> Ask:
    """A function `ask(requests, key, temperature=0.0, top_p=1.0, seed=0)` that gives one response per request, in
    order. `key` names the round. `folder` keeps the round's shards, so that a killed job repeats no finished batch. The
    teacher answers on so many `ranks`."""
    teacher = policy.start(spec, manifests, device, ranks=ranks)

    def ask(
        requests: list[Request], key: str, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> list[Response]:
        prompts: list[Prompt] = []
        for request in requests:
            if request.max_new_tokens is None:
                raise ValueError("a request to a teacher must say max_new_tokens")
            prompt = teacher.prompt_for(request, Draw(request.max_new_tokens, temperature, top_p))
            assert isinstance(prompt, Prompt)
            prompts.append(replace(prompt, seed=seed_of(prompt.text, seed)))
        with progress.bar(len(prompts), f"teacher/{key}") as bar:
            return [responses[0] for responses in shards.answer(teacher.engine, prompts, folder / key, bar.update)]

    return ask
