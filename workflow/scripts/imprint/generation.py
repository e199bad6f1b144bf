"""The generate job: puts every example of an eval to a model, through a context, and writes what it said.

Contexts are generators, so examples are driven in lockstep: round 0 collects the first request of every example and
sample, asks them in batches, hands the responses back, and so on until the last example has had its final turn. An
example that goes wrong (its context raises, its prompt does not fit) is a row with `error`; a model that goes wrong
ends the job.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imprint import models, plugins, shards, tables, work
from imprint.contexts import Message, Request
from imprint.engines import Candidates, Prompt, Response, failed
from imprint.errors import shown
from imprint.identity import canonical, file_sha256, fingerprint, read_manifest


def start(manifests: list[Path], engine: dict[str, Any], device: str) -> Any:
    """An engine with the weights of a chain of manifests. `engine` is {"name", "dtype", "batch_size"}."""
    model, tokenizer = models.load(manifests, models.dtype_of(engine["dtype"], device), device)
    return plugins.load("engines", engine["name"]).Engine(model, tokenizer, engine["batch_size"])


def seed_of(*parts: Any) -> int:
    """A sampling seed (63 bits) from what it belongs to."""
    return int.from_bytes(hashlib.sha256(canonical(parts).encode()).digest()[:8]) >> 1


@dataclass
class _Dialogue:
    """One example and sample on its way through a context."""

    row: dict[str, Any]
    sample: int
    steps: Generator[Request, str, None]
    turn: int = -1
    request: Request | None = None
    asked: Prompt | Candidates | None = None
    records: list[dict[str, Any]] = field(default_factory=list)

    def record(self, response: Response, sample: int) -> None:
        """Keep a response as a row of the generations table; `prompt` becomes a hash when the table is written."""
        columns = vars(response).copy()
        self.records.append(
            {
                "example_id": self.row["example_id"],
                "sample": sample,
                "turn": self.turn,
                "final": self.request is None or self.request.final,
                "prompt": None if self.asked is None else self.asked.text,
                "response": columns.pop("text"),
                **columns,
            }
        )


def run(
    *,
    manifests: list[Path],
    dataset: Path,
    spec: dict[str, Any],
    out: Path,
    prompts: Path,
    work_folder: Path,
    code: list[Path],
    threads: int,
    device: str,
) -> None:
    """Write the generations and prompts of one arm, seed and eval, with rows in the order of the dataset.

    `spec` has arm, seed, eval, ask ("generate" or "loglikelihood"), context and engine (each with its settings), limit,
    and for generation max_new_tokens, samples, temperature and top_p. With "loglikelihood" the final request of an
    example is followed by each of its reference's options, one row per option; requests before it are generated."""
    import torch

    torch.set_num_threads(threads)
    rows = tables.read_dataset(dataset, spec["limit"])
    identity = {
        "spec": spec,
        "dataset": file_sha256(dataset),
        "weights": [read_manifest(path)["fingerprint"] for path in manifests],
        "code": work.sums(code),
        "device": [device, models.dtype_of(spec["engine"]["dtype"], device)],
    }
    with work.folder(work_folder, fingerprint(identity)) as folder:
        engine = start(manifests, spec["engine"], device)
        context = plugins.load("contexts", spec["context"]["name"])
        settings = plugins.settings("contexts", spec["context"]["name"], spec["context"]["settings"])
        dialogues = [
            _Dialogue(row, sample, context.turns(row["messages"], settings, ask=spec["ask"]))
            for row in rows
            for sample in range(spec["samples"])
        ]
        _drive(dialogues, engine, spec, folder)
        if errors := [one.records[-1]["error"] for one in dialogues if one.records[-1]["error"] is not None]:
            told = f"{len(errors)} of {len(dialogues)} responses failed, the first because of: {errors[0]}"
            print(shown(f"imprint: {spec['arm']}/{spec['eval']}: {told}"), file=sys.stderr, flush=True)
        _write(dialogues, engine.name, spec, read_manifest(manifests[0])["template_sha256"], out, prompts)
        work.remove(folder)


def _drive(dialogues: list[_Dialogue], engine: Any, spec: dict[str, Any], folder: Path) -> None:
    """Take every dialogue to its end, a round at a time."""
    from tqdm import tqdm

    active = [dialogue for dialogue in dialogues if _advance(dialogue, None, engine, spec)]
    with tqdm(total=len(active), desc=f"{spec['arm']}/{spec['eval']}", mininterval=5, file=sys.stderr) as bar:
        while active:
            answers: dict[int, list[Response]] = {}
            # Rounds are numbered by the turn, which all active dialogues share.
            for kind in (Prompt, Candidates):
                some = [dialogue for dialogue in active if isinstance(dialogue.asked, kind)]
                asked: Any = [dialogue.asked for dialogue in some]
                shard_folder = folder / f"turn{active[0].turn}-{kind.__name__.lower()}"
                found = shards.answer(engine, asked, shard_folder, bar.update)
                answers |= {id(dialogue): responses for dialogue, responses in zip(some, found, strict=True)}
            going = []
            for dialogue in active:
                responses = answers[id(dialogue)]
                options = isinstance(dialogue.asked, Candidates)
                for i, response in enumerate(responses):
                    dialogue.record(response, i if options else dialogue.sample)
                assert dialogue.request is not None
                if dialogue.request.final or responses[0].error is not None:
                    dialogue.steps.close()
                elif _advance(dialogue, responses[0].text, engine, spec):
                    going.append(dialogue)
            active = going
            bar.total += len(active)
            bar.refresh()


def _advance(dialogue: _Dialogue, response: str | None, engine: Any, spec: dict[str, Any]) -> bool:
    """Get a dialogue's next request; on an exception record it and return False."""
    dialogue.turn += 1
    dialogue.request = dialogue.asked = None
    try:
        dialogue.request = next(dialogue.steps) if response is None else dialogue.steps.send(response)
        dialogue.asked = _asked(dialogue, dialogue.request, engine, spec)
    except StopIteration:
        dialogue.record(failed("the context ended without a final request"), dialogue.sample)
    except Exception as error:  # one example's own fault must not cost the others their answers
        dialogue.request = None
        dialogue.record(failed(f"{type(error).__name__}: {error}"), dialogue.sample)
    return dialogue.asked is not None


def _asked(dialogue: _Dialogue, request: Request, engine: Any, spec: dict[str, Any]) -> Prompt | Candidates:
    """What the engine is asked for a request. Intermediate turns are greedy."""
    text, breaks = engine.render(request.messages, request.prefill)
    row, final = dialogue.row, request.final
    if final and spec["ask"] == "loglikelihood":
        return Candidates(text, tuple(row["reference"]["options"]), breaks)
    longest = request.max_new_tokens or spec["max_new_tokens"]
    if not longest:
        raise ValueError("an intermediate request must say max_new_tokens when options are scored")
    return Prompt(
        text,
        longest,
        tuple(request.stop),
        spec["temperature"] if final else 0.0,
        spec["top_p"] if final else 1.0,
        seed_of(row["example_id"], dialogue.sample, spec["seed"]),
        breaks,
    )


def _write(
    dialogues: list[_Dialogue], engine: str, spec: dict[str, Any], template: str, out: Path, prompts: Path
) -> None:
    """The two tables; the prompts in the order of their first use."""
    run_columns = {key: spec[key] for key in ("arm", "seed", "eval")}
    seen: dict[str, str] = {}
    rows = []
    for dialogue in dialogues:
        for record in dialogue.records:
            prompt = record.pop("prompt")
            digest = None if prompt is None else hashlib.sha256(prompt.encode()).hexdigest()
            if digest is not None:
                seen[digest] = prompt
            rows.append({**run_columns, **record, "prompt_sha256": digest, "engine": engine})
    tables.write(
        prompts,
        "prompts",
        [{"prompt_sha256": d, "prompt": text, "template_sha256": template} for d, text in seen.items()],
    )
    tables.write(out, "generations", rows)


def asker(manifests: list[Path], engine: dict[str, Any], folder: Path, device: str) -> Callable[..., list[Response]]:
    """A teacher: `ask(requests, key, temperature=0.0, top_p=1.0, seed=0)` gives one response per request, in order.
    `key` names the round, and `folder` keeps its shards, so that a killed job asks only for the rest."""
    teacher = start(manifests, engine, device)

    def ask(
        requests: list[Request], key: str, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> list[Response]:
        from tqdm import tqdm

        asked = []
        for request in requests:
            text, breaks = teacher.render(request.messages, request.prefill)
            if request.max_new_tokens is None:
                raise ValueError("a request to a teacher must say max_new_tokens")
            draw = seed_of(text, seed)
            asked.append(Prompt(text, request.max_new_tokens, tuple(request.stop), temperature, top_p, draw, breaks))
        with tqdm(total=len(asked), desc=f"teacher/{key}", mininterval=5, file=sys.stderr) as bar:
            return [responses[0] for responses in shards.answer(teacher, asked, folder / key, bar.update)]

    return ask


def converse(
    manifests: list[Path],
    engine: dict[str, Any],
    context: Any,
    messages: list[Message],
    max_new_tokens: int,
    device: str,
) -> list[Response]:
    """Put one dialogue to an arm under its context (a name with settings), greedily: the response of every turn, the
    last being the one that would be scored."""
    asked = start(manifests, engine, device)
    steps = plugins.load("contexts", context.name).turns(messages, context.settings, ask="generate")
    responses = []
    with contextlib.closing(steps):
        request = next(steps)
        while True:
            text, breaks = asked.render(request.messages, request.prefill)
            longest = request.max_new_tokens or max_new_tokens
            responses += asked.generate([Prompt(text, longest, tuple(request.stop), breaks=breaks)])
            if request.final or responses[-1].error is not None:
                return responses
            request = steps.send(responses[-1].text)
