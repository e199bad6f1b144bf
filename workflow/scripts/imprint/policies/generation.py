"""The generate job: puts every example of an eval to an arm, and writes the arm's responses.

There is one dialogue for each example and sample. All dialogues advance together, a round at a time: the engine answers
the prompts of the current round in batches, and then every dialogue makes its next prompts. If an example goes wrong (a
context raises, a prompt is too long), its row has an `error`, and the others go on. If the engine raises, the job ends.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from imprint.draws import seed_of
from imprint.engines import Candidates, Prompt, Response, failed
from imprint.models.chat_text import unanswered
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
    """What a generate job makes: the generations of one arm, seed and eval.

    With `ask` "loglikelihood", the first request of an example has the options of the example's reference, and the
    arm's contexts pass them on in one of their requests. Each option becomes a row. The model writes responses to the
    other requests."""

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
class _Row:
    """A row of the table: a response and its place. `prompt` is None if the row holds no response to one prompt, but an
    outcome's text that no single response holds, or the error of an example that went wrong."""

    response: Response
    turn: int
    sample: int
    prompt: Prompt | Candidates | None = None
    final: bool = False
    state: str | None = None


@dataclass
class _Dialogue:
    """The dialogue of one example and sample. `prompts` are the prompts of the current turn, and `rows` are the rows of
    all turns so far."""

    spec: Spec
    example: dict[str, Any]
    sample: int
    turns: Turns
    turn: int = -1
    prompts: list[Prompt | Candidates] = field(default_factory=list)
    rows: list[_Row] = field(default_factory=list)

    def advance(self, arm: Policy, responses: list[Response] | None) -> bool:
        """Send the responses to the last requests (None at the beginning), and make the next prompts. Returns False if
        there are none, because the dialogue has its outcome or went wrong."""
        self.turn += 1
        self.prompts = []
        draw = Draw(self.spec.max_new_tokens, self.spec.temperature, self.spec.top_p)
        answers = None if responses is None else [Outcome.of(response) for response in responses]
        try:
            following = step(self.turns, answers)
            if isinstance(following, Outcome):
                self._end(following)
            else:
                self.prompts = [
                    arm.prompt_for(request, draw, self._seed(place)) for place, request in enumerate(following)
                ]
        except Exception as error:  # the other examples go on
            self.turns.close()
            self.rows.append(self._row(failed(f"{type(error).__name__}: {error}"), final=True))
        return bool(self.prompts)

    def take(self, responses: list[list[Response]]) -> list[Response] | None:
        """Add rows for the responses to each prompt. Returns the one response to each request, or None if a response
        failed, which ends the dialogue."""
        for prompt, group in zip(self.prompts, responses, strict=True):
            self.rows += [self._row(response, prompt, option) for option, response in enumerate(group)]
        if self.failure is not None:
            self.failure.final = True
            self.turns.close()
            return None
        return [response_of(group) for group in responses]

    @property
    def failure(self) -> _Row | None:
        """The first row with an error, or None."""
        return next((row for row in self.rows if row.response.error is not None), None)

    def _seed(self, place: int) -> int:
        """The seed of a request's draw: it depends on the example, the sample, the run's seed, and the turn and place
        of the request in the dialogue. The first request leaves turn and place out: an arm with a single request
        draws from the same seed in every kind of dialogue."""
        position = (self.turn, place) if (self.turn, place) != (0, 0) else ()
        return seed_of(self.example["example_id"], self.sample, self.spec.seed, *position)

    def _end(self, outcome: Outcome) -> None:
        """Mark the rows that are scored: the row of the outcome's response, or all options of a comparison. If no
        response holds the outcome's text, add a row for the text."""
        state = None if outcome.state is None else canonical(outcome.state)
        scored = [row for row in self.rows if row.response is outcome.response and row.response.text == outcome.text]
        if self.spec.ask == "loglikelihood":
            if not scored or not isinstance(scored[0].prompt, Candidates):
                raise ImprintError("the options were not compared: a context has to carry them on in one request")
            scored = [row for row in self.rows if row.prompt is scored[0].prompt]
        if not scored:
            scored = [self._row(Response(outcome.text, "stop", None, None, None, 0.0))]
            self.rows += scored
        for row in scored:
            row.final, row.state = True, state

    def _row(
        self, response: Response, prompt: Prompt | Candidates | None = None, option: int = 0, final: bool = False
    ) -> _Row:
        """A new row of this turn. In an eval that compares options, the number of an option is its `sample`."""
        compared = isinstance(prompt, Candidates) and self.spec.ask == "loglikelihood"
        return _Row(response, self.turn, option if compared else self.sample, prompt, final)


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
    gpus: int = 1,
) -> None:
    """Write the generations to `out` and the prompts to `prompts`, with rows in the order of `dataset`. The arm's
    contexts, hooks and decoder and the eval's environment read `datasets` and `runs`. A work folder keeps responses as
    shards, so that a killed job repeats no finished batch."""
    import torch

    torch.set_num_threads(threads)
    rows = dataset_rows.read(dataset, spec.limit)
    inputs = read(spec.inputs, datasets, runs, spec.limit)
    ranks = policy.ranks(spec.policy, manifests, gpus)
    weights = [*manifests, *spec.inputs.manifests()]
    identity = work.identity(
        spec, [dataset, *datasets, *runs], weights, code, *policy.where(spec.policy, device, ranks)
    )
    with work.folder(out.with_suffix(".work"), identity) as folder:
        arm = policy.start(spec.policy, manifests, device, inputs, ranks)
        dialogues = [
            _Dialogue(spec, row, sample, _turns(arm, row, spec)) for row in rows for sample in range(spec.samples)
        ]
        _drive(dialogues, arm, spec, folder)
        if failures := [dialogue.failure for dialogue in dialogues if dialogue.failure is not None]:
            first = failures[0].response.error
            message = f"{len(failures)} of {len(dialogues)} responses failed, the first because of: {first}"
            print(shown(f"imprint: {spec.arm}/{spec.eval}: {message}"), file=sys.stderr, flush=True)
        template = read_manifest(manifests[0])["template_sha256"]
        _write(dialogues, arm.engine.name, template, out, prompts)
        work.remove(folder)


def _turns(arm: Policy, row: dict[str, Any], spec: Spec) -> Turns:
    """The dialogue of an example, which begins with its messages and, if options are compared, with its options. An
    answer at the end of the messages is not shown to the arm. As a generator, it raises the errors of a broken row at
    its first step, where they become the row's `error`."""
    options = tuple(row["reference"]["options"]) if spec.ask == "loglikelihood" else ()
    asked = unanswered(row["messages"])
    return (yield from arm.turns({**row, "messages": asked}, Request(asked, options=options), spec.environment))


def _drive(dialogues: list[_Dialogue], arm: Policy, spec: Spec, folder: Path) -> None:
    """Advance all dialogues to their ends, a round at a time. The responses of a round are shards below `folder`."""
    active = [dialogue for dialogue in dialogues if dialogue.advance(arm, None)]
    with progress.bar(sum(len(dialogue.prompts) for dialogue in active), f"{spec.arm}/{spec.eval}") as bar:
        while active:
            turn = active[0].turn  # all active dialogues are at the same turn
            responses: dict[int, list[Response]] = {}  # by the identity of the prompt
            for kind in (Prompt, Candidates):
                batch: Any = [one for dialogue in active for one in dialogue.prompts if isinstance(one, kind)]
                groups = shards.answer(arm.engine, batch, folder / f"turn{turn}-{kind.__name__.lower()}", bar.update)
                responses |= {id(prompt): group for prompt, group in zip(batch, groups, strict=True)}
            still_active = []
            for dialogue in active:
                answers = dialogue.take([responses[id(prompt)] for prompt in dialogue.prompts])
                if answers is not None and dialogue.advance(arm, answers):
                    still_active.append(dialogue)
            active = still_active
            bar.total += sum(len(dialogue.prompts) for dialogue in active)
            bar.refresh()


def _write(dialogues: Sequence[_Dialogue], engine: str, template: str, out: Path, prompts: Path) -> None:
    """Write both tables. A prompt that was used several times has one row, at its first use."""
    texts: dict[str, str] = {}
    rows = []
    for dialogue in dialogues:
        spec = dialogue.spec
        for row in dialogue.rows:
            digest = None
            if row.prompt is not None:
                digest = hashlib.sha256(row.prompt.text.encode()).hexdigest()
                texts[digest] = row.prompt.text
            columns = vars(row.response).copy()
            rows.append(
                {
                    "arm": spec.arm,
                    "seed": spec.seed,
                    "eval": spec.eval,
                    "example_id": dialogue.example["example_id"],
                    "sample": row.sample,
                    "turn": row.turn,
                    "final": row.final,
                    "prompt_sha256": digest,
                    "response": columns.pop("text"),
                    "state": row.state,
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
