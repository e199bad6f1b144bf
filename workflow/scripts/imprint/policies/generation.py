"""The generate job: puts every example of an eval to an arm, and writes what it said.

Dialogues are driven in lockstep: round 0 collects the first requests of every example and sample, asks them in batches,
hands the responses back, and so on until the last dialogue has its outcome. An example that goes wrong (a context
raises, a prompt does not fit) is a row with `error`; a model that goes wrong ends the job."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from imprint.draws import seed_of
from imprint.engines import Candidates, Prompt, Response, failed
from imprint.models import chains
from imprint.policies import policy, shards
from imprint.policies.dialogue import Outcome, Request, Turns, step
from imprint.policies.policy import Draw, Policy, response_of
from imprint.runtime import parquet, progress, work
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.identity import canonical, read_manifest
from imprint.runtime.plugins import Plug, Strict
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named, read


class Spec(Strict):
    """What a generate job makes. With `ask` "loglikelihood" the first request of an example carries its reference's
    options: they are scored where the arm's contexts put them, one row per option; other requests are written out."""

    arm: str
    seed: int
    eval: str
    ask: Literal["generate", "loglikelihood"]
    policy: policy.Spec
    environment: Plug | None
    inputs: Named
    samples: int
    temperature: float
    top_p: float
    max_new_tokens: int
    limit: int | None


@dataclass
class _Said:
    """A response in a dialogue, which becomes a row of the table. `asked` is what it answers; None for a text that no
    response holds, and for why there is none."""

    response: Response
    turn: int
    sample: int
    asked: Prompt | Candidates | None = None
    final: bool = False
    state: str | None = None


@dataclass
class _Dialogue:
    """One example and sample on its way to an outcome."""

    spec: Spec
    row: dict[str, Any]
    sample: int
    turns: Turns
    turn: int = -1
    asked: list[Prompt | Candidates] = field(default_factory=list)
    said: list[_Said] = field(default_factory=list)

    def advance(self, asking: Policy, answers: list[Response] | None) -> bool:
        """Get the next requests. False where there are none: the dialogue has an outcome, or went wrong."""
        self.turn += 1
        self.asked = []
        draw = Draw(self.spec.max_new_tokens, self.spec.temperature, self.spec.top_p)
        try:
            going = step(self.turns, None if answers is None else [Outcome.of(answer) for answer in answers])
            if isinstance(going, Outcome):
                self._end(going)
            else:
                self.asked = [asking.asked(request, draw, self._seed(place)) for place, request in enumerate(going)]
        except Exception as error:  # one example's own fault must not cost the others their answers
            self.turns.close()
            self.said.append(self._row(failed(f"{type(error).__name__}: {error}"), final=True))
        return bool(self.asked)

    def take(self, responses: list[list[Response]]) -> list[Response] | None:
        """Keep the responses to what was asked. Returns what the dialogue is sent, None where one of them failed."""
        for asked, group in zip(self.asked, responses, strict=True):
            self.said += [self._row(response, asked, number) for number, response in enumerate(group)]
        if self.failure is not None:
            self.failure.final = True
            self.turns.close()
            return None
        return [response_of(group) for group in responses]

    @property
    def failure(self) -> _Said | None:
        """The first response that is missing, which ends the dialogue."""
        return next((said for said in self.said if said.response.error is not None), None)

    def _seed(self, place: int) -> int:
        """What drives the draw of a request: the example, the sample, the run's seed, and its place in the dialogue
        (but for the first, so that an arm which asks once draws the same whatever stands around it)."""
        where = (self.turn, place) if (self.turn, place) != (0, 0) else ()
        return seed_of(self.row["example_id"], self.sample, self.spec.seed, *where)

    def _end(self, outcome: Outcome) -> None:
        """Mark the response that is scored: where options are compared, all of its request. A text that no response
        holds becomes a row of its own, without a prompt."""
        state = None if outcome.state is None else canonical(outcome.state)
        held = [said for said in self.said if said.response is outcome.response and said.response.text == outcome.text]
        if self.spec.ask == "loglikelihood":
            if not held or not isinstance(held[0].asked, Candidates):
                raise ImprintError("the options were not compared: a context has to carry them on in one request")
            held = [said for said in self.said if said.asked is held[0].asked]
        if not held:
            held = [self._row(Response(outcome.text, "stop", None, None, None, 0.0))]
            self.said += held
        for said in held:
            said.final, said.state = True, state

    def _row(
        self, response: Response, asked: Prompt | Candidates | None = None, option: int = 0, final: bool = False
    ) -> _Said:
        """A response with its place in the table, where an option of several has its number for a sample."""
        compared = isinstance(asked, Candidates) and self.spec.ask == "loglikelihood"
        return _Said(response, self.turn, option if compared else self.sample, asked, final)


def run(
    *,
    manifests: list[Path],
    dataset: Path,
    datasets: list[Path],
    runs: list[Path],
    spec: Spec,
    out: Path,
    prompts: Path,
    code: str,
    threads: int,
    device: str,
) -> None:
    """Write the generations and prompts of one arm, seed and eval, with rows in the order of the dataset. `datasets`
    and `runs` are what the arm's contexts, hooks and decoder and the eval's environment read."""
    import torch

    torch.set_num_threads(threads)
    rows = dataset_rows.read(dataset, spec.limit)
    inputs = read(spec.inputs, datasets, runs, spec.limit)
    dtype = chains.dtype_of(spec.policy.dtype, device)
    weights = [*manifests, *spec.inputs.manifests()]
    identity = work.identity(spec, [dataset, *datasets, *runs], weights, code, device, dtype)
    with work.folder(out.with_suffix(".work"), identity) as folder:
        asking = policy.start(spec.policy, manifests, device, inputs)
        dialogues = [
            _Dialogue(spec, row, sample, _turns(asking, row, spec)) for row in rows for sample in range(spec.samples)
        ]
        _drive(dialogues, asking, spec, folder)
        if failures := [dialogue.failure for dialogue in dialogues if dialogue.failure is not None]:
            why = failures[0].response.error
            told = f"{len(failures)} of {len(dialogues)} responses failed, the first because of: {why}"
            print(shown(f"imprint: {spec.arm}/{spec.eval}: {told}"), file=sys.stderr, flush=True)
        template = read_manifest(manifests[0])["template_sha256"]
        _write(dialogues, asking.engine.name, template, out, prompts)
        work.remove(folder)


def _turns(asking: Policy, row: dict[str, Any], spec: Spec) -> Turns:
    """The dialogue of an example, which begins with its messages and the options that it may have. What is wrong with a
    row shows at the first step."""
    options = tuple(row["reference"]["options"]) if spec.ask == "loglikelihood" else ()
    return (yield from asking.turns(row, Request(row["messages"], options=options), spec.environment))


def _drive(dialogues: list[_Dialogue], asking: Policy, spec: Spec, folder: Path) -> None:
    """Take every dialogue to its end, a round at a time."""
    active = [dialogue for dialogue in dialogues if dialogue.advance(asking, None)]
    with progress.bar(sum(len(dialogue.asked) for dialogue in active), f"{spec.arm}/{spec.eval}") as bar:
        while active:
            # Rounds are numbered by the turn, which all active dialogues share.
            answers: dict[int, list[Response]] = {}
            for kind in (Prompt, Candidates):
                asked: Any = [one for dialogue in active for one in dialogue.asked if isinstance(one, kind)]
                shard_folder = folder / f"turn{active[0].turn}-{kind.__name__.lower()}"
                responses = shards.answer(asking.engine, asked, shard_folder, bar.update)
                answers |= {id(one): group for one, group in zip(asked, responses, strict=True)}
            going = []
            for dialogue in active:
                taken = dialogue.take([answers[id(one)] for one in dialogue.asked])
                if taken is not None and dialogue.advance(asking, taken):
                    going.append(dialogue)
            active = going
            bar.total += sum(len(dialogue.asked) for dialogue in active)
            bar.refresh()


def _write(dialogues: Sequence[_Dialogue], engine: str, template: str, out: Path, prompts: Path) -> None:
    """The two tables; the prompts in the order of their first use."""
    texts: dict[str, str] = {}
    rows = []
    for dialogue in dialogues:
        spec = dialogue.spec
        for said in dialogue.said:
            digest = None
            if said.asked is not None:
                digest = hashlib.sha256(said.asked.text.encode()).hexdigest()
                texts[digest] = said.asked.text
            columns = vars(said.response).copy()
            rows.append(
                {
                    "arm": spec.arm,
                    "seed": spec.seed,
                    "eval": spec.eval,
                    "example_id": dialogue.row["example_id"],
                    "sample": said.sample,
                    "turn": said.turn,
                    "final": said.final,
                    "prompt_sha256": digest,
                    "response": columns.pop("text"),
                    "state": said.state,
                    "engine": engine,
                    **columns,
                }
            )
    parquet.write(
        prompts,
        "prompts",
        [{"prompt_sha256": digest, "prompt": text, "template_sha256": template} for digest, text in texts.items()],
    )
    parquet.write(out, "generations", rows)
