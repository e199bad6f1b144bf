"""Soft injection of a task (arXiv 2507.20906): what attention heads compute of a task where there are examples is mixed
into the same heads where there are none. A learned gate says how much, for each head of each layer.

1. The task's embedding. Prompts of `shots` examples and a question are drawn from `data`. The embedding is the mean
   input of each layer's attention output projection at the prompt's last token, [layers, heads, head width].
2. The gates. A question without examples is asked. At its last token, a head's activation a becomes
   (1 - g) a + g * embedding with the gate g = sigmoid(logit). The logits minimise the cross-entropy of the answer's
   first token.

    fit: {method: head_gates, data: antonyms, validation: antonyms_validation}

The hook `head_gates` uses what is found. The numbers of shots, prompts and steps, Adam's rate and the loss are those of
the published code (SNU-DRL/Soft_Injection, commit 750f28c). That code means to keep the best gates of its checks on
validation rows, and returns those of the last check, since it never updates the best loss. Here `validation` keeps the
best, and without it the last are kept. Ask under `few_shot: {shots: 0}` with the same `layout` as in the fit.

Controls: `gates: half` and `gates: shuffled` of the hook, and `embedding_of`, with which the gates are learned anew on
the embedding of another arm. What such gates gain owes nothing to this task's examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from imprint.contexts.few_shot import Layout
from imprint.draws import order
from imprint.methods import Fit
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict

if TYPE_CHECKING:
    import torch

    from imprint.engines.transformers import Engine

STATE = "state.pt"
VALIDATION = 100
"""The most validation rows of a check (published)."""


class Settings(Strict):
    data: str = Field(description="dataset of the task: dialogues of a question and an answer")
    validation: str | None = Field(
        None, description="rows of the task by which the best of the checked gates are kept; null keeps the last"
    )
    layout: Layout = Field(
        "text", description="of questions and examples, as in the context `few_shot` (published: text)"
    )
    shots: int = Field(10, ge=1, description="examples in a prompt from which the embedding is made (published: 10)")
    prompts: int = Field(50, ge=1, description="prompts from which the embedding is made (published: 50)")
    embedding_of: str | None = Field(
        None, description="a control: another arm of this method, whose embedding is taken instead of this task's"
    )
    steps: int = Field(400, ge=1, description="updates of the gates (published: 400)")
    batch_size: int = Field(1, ge=1, description="questions a step (published: 1)")
    learning_rate: float = Field(0.2, gt=0, description="Adam's (published: 0.2)")
    check_steps: int = Field(50, ge=1, description="steps between checks and between checkpoints (published: 50)")
    read_together: int = Field(16, ge=1, description="prompts that are read together")


def inputs(settings: Settings) -> Inputs:
    """The datasets, and the arm whose embedding is taken."""
    data = (settings.data, *([settings.validation] if settings.validation else []))
    return Inputs(datasets=data, arms=(settings.embedding_of,) if settings.embedding_of else ())


def makes(settings: Settings) -> str:
    return "hooks"


class Question(NamedTuple):
    """Token ids of a question without examples, and the first token of its answer."""

    tokens: list[int]
    first: int


def fit(job: Fit) -> dict[str, Any]:
    """Write `embedding` [layers, heads, head width] and `logits` [layers, heads], going on from the last complete
    checkpoint in `job.folder`. Returns the metrics for the manifest. Raises ImprintError for a loss that is not
    finite."""
    import torch

    from imprint.artifacts import hooks
    from imprint.engines.transformers import Engine
    from imprint.hooks.head_gates import WHO, inject
    from imprint.models import chains
    from imprint.runtime import progress
    from imprint.training import fits

    fits.begin(job)
    s = job.settings
    model, tokenizer = chains.load(job.manifests, job.dtype, job.device)
    model.requires_grad_(False)
    engine = Engine(model, tokenizer, s.read_together)
    questions = _questions(job, engine, s.data)
    validation = _questions(job, engine, s.validation)[:VALIDATION] if s.validation else []
    if s.embedding_of is None:
        embedding = _embedding(job, engine)
    else:
        embedding = hooks.read(job.inputs.arms[s.embedding_of], WHO, ("embedding", "logits"))["embedding"]
    gates = _Gates(job, embedding.shape[:2])
    inject(model, embedding, gates.logits, engine.passing)
    rows = order(len(questions), s.steps * s.batch_size / len(questions), job.seed)
    with progress.bar(s.steps, f"{job.arm} seed {job.seed}", initial=gates.step, unit="step") as bar:
        while gates.step < s.steps:
            drawn = rows[gates.step * s.batch_size : (gates.step + 1) * s.batch_size]
            loss = gates.update(_loss(engine, [questions[index] for index in drawn]))
            if gates.step % s.check_steps == 0 or gates.step == s.steps:
                if validation:
                    with torch.no_grad():
                        gates.check(_mean_loss(engine, validation, s.read_together))
                if gates.step < s.steps:
                    gates.keep()
            bar.update(1)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    hooks.write(job.out, {"embedding": embedding, "logits": gates.chosen})
    gates.curves.write()
    return {"rows": len(questions), **gates.metrics()}


class _Gates:
    """The state of a fit: the gates' logits, the optimiser, the step, the curves, and the best check."""

    def __init__(self, job: Fit, shape: Sequence[int]) -> None:
        import torch

        from imprint.training import checkpoints
        from imprint.training.curves import Curves

        self.job = job
        self.logits = torch.zeros(*shape, device=job.device, requires_grad=True)
        self.optimiser = torch.optim.Adam([self.logits], lr=job.settings.learning_rate)
        self.step = 0
        self.curves = Curves(job)
        self.best: tuple[int, float, torch.Tensor] | None = None
        """The step of the best check so far, its loss, and the logits that it measured."""
        if last := checkpoints.last(job.folder):
            state = torch.load(last / STATE, weights_only=True)
            with torch.no_grad():
                self.logits.copy_(state["logits"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.best = state["step"], state["best"]
            self.curves.go_on(state["curves"])

    def update(self, loss: torch.Tensor) -> float:
        """Take one step down a loss. Returns its value."""
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return self._note("loss", float(loss.detach()))

    def check(self, loss: float) -> None:
        """Take note of the loss on the validation rows. Of equal checks, the first is the best."""
        self._note("validation_loss", loss)
        if self.best is None or loss < self.best[1]:
            self.best = self.step, loss, self.logits.detach().clone()

    def _note(self, quantity: str, value: float) -> float:
        if not math.isfinite(value):
            raise ImprintError(
                f"arm '{self.job.arm}': the {quantity} is {value} at step {self.step}; write a smaller learning_rate "
                f"than {self.job.settings.learning_rate:g}"
            )
        self.curves.add(self.step, {quantity: value})
        return value

    def keep(self) -> None:
        """Write a checkpoint."""
        import torch

        from imprint.training import checkpoints

        folder = self.job.folder / f"checkpoint-{self.step}"
        folder.mkdir(parents=True, exist_ok=True)
        state = {"logits": self.logits.detach(), "optimiser": self.optimiser.state_dict(), "step": self.step}
        torch.save({**state, "curves": self.curves.rows, "best": self.best}, folder / STATE)
        checkpoints.seal(self.job.folder, self.step)

    @property
    def chosen(self) -> torch.Tensor:
        """The logits of the best check; the last ones without a check."""
        return self.logits.detach() if self.best is None else self.best[2]

    def metrics(self) -> dict[str, Any]:
        """The fit's metrics for the manifest."""
        losses = self.curves.of("loss")
        found = {"steps": self.step, "first_loss": losses[0], "final_loss": losses[-1]}
        found["gates"], found["gates_above_half"] = self.logits.numel(), int((self.chosen > 0).sum())
        return found if self.best is None else {**found, "best_step": self.best[0], "validation_loss": self.best[1]}


def _embedding(job: Fit, engine: Engine) -> torch.Tensor:
    """The mean activations of the heads behind prompts with examples, [layers, heads, head width]."""
    from imprint.contexts.few_shot import shown
    from imprint.methods._prompts import ask
    from imprint.models.layers import heads
    from imprint.policies.recording import record

    s, rows = job.settings, job.inputs.datasets[job.settings.data]
    texts = []
    for number, index in enumerate(order(len(rows), s.prompts / len(rows), job.seed)):
        request = shown(ask(job, rows[index]), rows, s.shots, s.layout, f"{job.seed}/{number}")
        texts.append(engine.render(request.messages, request.prefill))
    mean = record(engine, texts, "last_prompt", "heads").mean(0)
    return mean.view(len(mean), heads(engine.model), -1)


def _questions(job: Fit, engine: Engine, data: str) -> list[Question]:
    """The rows of a dataset as questions without examples. Raises ImprintError for a row that does not end with an
    answer."""
    from imprint.contexts.few_shot import shown
    from imprint.methods._prompts import ask
    from imprint.models import chat_text

    questions = []
    for row in job.inputs.datasets[data]:
        if not row["messages"] or row["messages"][-1]["role"] != "assistant" or not row["messages"][-1]["content"]:
            raise ImprintError(
                f"arm '{job.arm}': example {row['example_id']} of '{data}' ends without an answer; write a dataset of "
                "questions and answers"
            )
        request = shown(ask(job, row), [], 0, job.settings.layout, "")
        text = engine.render(request.messages, request.prefill)
        space = " " if job.settings.layout == "text" else ""
        head, (answer,) = chat_text.continued(engine.tokenizer, text, (space + row["messages"][-1]["content"],))
        questions.append(Question(head, answer[0]))
    if not questions:
        raise ImprintError(f"arm '{job.arm}': dataset '{data}' has no rows; write a dataset of questions and answers")
    return questions


def _loss(engine: Engine, questions: Sequence[Question]) -> torch.Tensor:
    """The mean cross-entropy, in nats, of the answers' first tokens."""
    import torch

    width = max(len(question.tokens) for question in questions)
    padding = [width - len(question.tokens) for question in questions]
    pad = engine.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * left + q.tokens for left, q in zip(padding, questions, strict=True)])
    mask = torch.tensor([[0] * left + [1] * (width - left) for left in padding], device=engine.device)
    engine.passing.begin(mask.bool(), written=False, ends=True)
    logits = engine.model(
        input_ids=ids.to(engine.device),
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=1,
    ).logits[:, -1]
    first = torch.tensor([question.first for question in questions], device=engine.device)
    return torch.nn.functional.cross_entropy(logits.float(), first)


def _mean_loss(engine: Engine, questions: Sequence[Question], size: int) -> float:
    """`_loss` over all questions, `size` at a time."""
    parts = [questions[start : start + size] for start in range(0, len(questions), size)]
    return sum(float(_loss(engine, part)) * len(part) for part in parts) / len(questions)
