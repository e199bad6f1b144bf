"""What tests of asking share: a pico model, a dataset of questions, the specs of jobs that ask, an engine whose answers
a test writes down, and plug-ins that a test defines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pico
from imprint.engines import Candidates, Pass, Prompt, Response
from imprint.models import sources
from imprint.models.chat_text import ChatText, Message
from imprint.policies import generation, judging, policy
from imprint.policies.dialogue import Outcome, Request, Turns
from imprint.runtime import parquet, plugins
from imprint.runtime.identity import write_json
from imprint.runtime.plugins import Plug, Strict
from imprint.synthesis import _job as synthesis
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named, Read

QUESTIONS = ["Hello", "What is it?", "x", "Write a poem of the sea", "You are", "y" * 90, "Name the user", "Why", "q"]


def model(project: Path, seed: int = 0) -> Path:
    """The manifest of a pico model that was fetched into a project."""
    pico.make(project / "pico", seed)
    sources.fetch({"path": "pico"}, project / "models" / "pico", project)
    return project / "models" / "pico" / "manifest.json"


def paper(folder: Path) -> Path:
    """A manifest without weights, for an engine that reads none."""
    write_json(folder / "manifest.json", {"kind": "model", "fingerprint": "f", "template_sha256": "1"})
    return folder / "manifest.json"


def questions(path: Path, texts: list[str] = QUESTIONS) -> Path:
    """A dataset of questions, each with three options."""
    rows = [
        {"messages": [{"role": "user", "content": q}], "reference": {"options": [f"yes {q}", "no", "perhaps the sea"]}}
        for q in texts
    ]
    dataset_rows.write(path, "questions", rows, "0" * 64)
    return path


# Specs and jobs.


def policy_spec(**changes: Any) -> policy.Spec:
    """An arm without contexts, in fp32."""
    return policy.Spec(**{"engine": "transformers", "dtype": "float32", "batch_size": 4, **changes})


def generation_spec(**changes: Any) -> generation.Spec:
    """Greedy answers of eight tokens; what is not a generate job's own key is the policy's."""
    spec: dict[str, Any] = {
        "arm": "base", "seed": 0, "eval": "questions", "ask": "generate", "environment": None, "inputs": Named(),
        "samples": 1, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 8, "limit": None,
    }  # fmt: skip
    own = {key: value for key, value in changes.items() if key in generation.Spec.model_fields}
    policys = {key: value for key, value in changes.items() if key not in own}
    return generation.Spec(**{**spec, "policy": policy_spec(**policys), **own})


def generation_job(manifest: Path, dataset: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Arguments of a generate job that writes into `folder`."""
    return {
        "manifests": [manifest], "dataset": dataset, "datasets": [], "runs": [], "spec": generation_spec(**changes),
        "out": folder / "out.parquet", "prompts": folder / "prompts.parquet", "code": "{}", "threads": 1,
        "device": "cpu",
    }  # fmt: skip


def tables(job: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The generations (without seconds) and the prompts that a generate job has left."""
    rows = parquet.read(job["out"], "generations").drop_columns(["seconds"])
    return rows.to_pylist(), parquet.read(job["prompts"], "prompts").to_pylist()


def generate(
    manifest: Path, dataset: Path, folder: Path, **changes: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run a generate job: its generations (without seconds), and its prompts."""
    job = generation_job(manifest, dataset, folder, **changes)
    generation.run(**job)
    assert not job["out"].with_suffix(".work").exists()
    return tables(job)


def judging_spec(**changes: Any) -> judging.Spec:
    """What is judged stands in `questions`; nothing unless it is given."""
    spec = {
        "arm": "a1", "seed": 0, "eval": "e1", "judge": "j", "questions": {}, "policy": policy_spec(), "limit": None,
    }  # fmt: skip
    return judging.Spec(**{**spec, **changes})


def synthesis_spec(plugin: str, settings: dict[str, Any], **changes: Any) -> synthesis.Spec:
    """A synthesis with a teacher, which `changes` names."""
    spec = {"dataset": "made", "plugin": plugin, "settings": settings, "inputs": Named(), "limit": None}
    return synthesis.Spec(**{**spec, **changes})


# Plug-ins that a test defines.

PATH, LOAD = plugins.path.__wrapped__, plugins.load.__wrapped__  # that remember nothing


class NoSettings(Strict):
    """No settings."""


def plugin(monkeypatch: pytest.MonkeyPatch, kind: str, name: str, **parts: Any) -> Plug:
    """A plug-in of these parts, checked against its contract like any other, for the length of a test."""
    module = ModuleType(f"imprint.{kind}.{name}")
    vars(module).update({"Settings": NoSettings, **parts})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    names = plugins.names
    monkeypatch.setattr(plugins, "names", lambda of: (*names(of), name) if of == kind else names(of))
    monkeypatch.setattr(plugins, "path", PATH)
    monkeypatch.setattr(plugins, "load", LOAD)
    return Plug(name=name)


class Scripted:
    """An engine that says of each prompt what `says` gives: a text, or a whole response. An option is the likelier the
    shorter it is. It keeps what it has answered, batch by batch, and is killed after so many batches."""

    name, limit, model = "scripted", None, None

    def __init__(
        self, says: Callable[[Prompt], str | Response], batch_size: int = 16, killed_after: int | None = None
    ) -> None:
        self.says, self.batch_size, self.killed_after = says, batch_size, killed_after
        self.batches: list[list[Prompt | Candidates]] = []
        self.passing = Pass()

    @property
    def asked(self) -> list[Prompt | Candidates]:
        """Everything that it has answered."""
        return [one for batch in self.batches for one in batch]

    def render(self, messages: list[Message], prefill: str = "") -> ChatText:
        return ChatText("\n".join(message["content"] for message in messages) + prefill)

    def tokens(self, text: str, breaks: tuple[int, ...] = ()) -> list[int]:
        return list(range(len(text) // 50))

    def generate(self, prompts: list[Prompt]) -> list[Response]:
        self._begin(prompts)
        return [
            said if isinstance(said, Response) else Response(said, "stop", 9, 5, -1.0, 0.1)
            for said in map(self.says, prompts)
        ]

    def loglikelihood(self, asked: list[Candidates]) -> list[list[Response]]:
        self._begin(asked)
        return [[Response(text, None, 9, 5, -float(len(text)), 0.1) for text in one.continuations] for one in asked]

    def _begin(self, batch: Sequence[Prompt | Candidates]) -> None:
        if len(self.batches) == self.killed_after:
            raise RuntimeError("killed")
        if batch:
            self.batches.append([*batch])

    def as_plugin(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """Let the engine `scripted` be this one; returns that name."""
        can = frozenset({"generate", "loglikelihood", "weights"})
        parts = {"CAN": can, "start": lambda chain, dtype, device, batch_size, ranks=1: self}
        return plugin(monkeypatch, "engines", "scripted", **parts).name


# Dialogues, by hand.


def said(text: str | None, logprob: float = -1.0, tokens: int = 1) -> Response:
    """A response of this text."""
    return Response(text, "stop", 1, tokens, logprob, 0.0)


def asked(text: str, **how: Any) -> Request:
    """A request of one user's turn."""
    return Request([{"role": "user", "content": text}], **how)


def drive(turns: Turns, *texts: str) -> list[Request]:
    """The requests that a layer makes, one at a time, when the responses say these texts; then it has to end."""
    (request,) = next(turns)
    requests = [request]
    for text in texts:
        (request,) = turns.send([said(text)])
        requests.append(request)
    with pytest.raises(StopIteration):
        turns.send([said("")])
    return requests


def best_of(number: int) -> Callable[..., Turns]:
    """The turns of a decoder that draws several answers and takes the one with the highest mean log-probability."""

    def turns(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        answers = yield [replace(request, temperature=1.0)] * number
        best = max(answers, key=lambda answer: (answer.logprob_sum or 0.0) / (answer.response_tokens or 1))
        return Outcome(best.text or "", None, best)

    return turns


def reviewed(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
    """The turns of a context that asks for a draft and then for a better one."""
    (draft,) = yield [request]
    more = [{"role": "assistant", "content": draft.text}, {"role": "user", "content": "Improve it."}]
    yield [Request([*request.messages, *more])]
    return None
