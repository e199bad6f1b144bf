"""Objectives without labels: the model's certainty about the options of a question (`reference.options`).

The entropy of the next token of a prompt collapses easily. The entropy over options does not, because the model
chooses among given texts. Questions are asked as in an eval: under their contexts, which may let the model write
something first, such as a role, and with the options' log-likelihoods as the assistant's turn. What comes first is
written by the weights of that step, greedily.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from imprint.composition.learning import Objective
from imprint.composition.settings import Rows
from imprint.draws import order
from imprint.methods import Fit
from imprint.models import chat_text
from imprint.policies import policy
from imprint.policies.dialogue import Outcome, Request, Turns, prompt_tokens, step
from imprint.policies.policy import Draw
from imprint.runtime.errors import ImprintError
from imprint.training.assistant_tokens import IGNORED

NO_LIMIT = Draw(0)
"""Contexts say how long their own texts may be, where options are scored."""


class Question(NamedTuple):
    """A question as token ids: the prompt, with what the model has written in it, and each option."""

    prompt: list[int]
    options: list[list[int]]


class Questions:
    """The questions of a dataset, put to a model that is in training. `rows` are the dataset's."""

    def __init__(self, job: Fit, model: Any, tokenizer: Any, data: Rows) -> None:
        """Raises ImprintError for a row without two options, a row longer than `max_length`, and an empty dataset."""
        self.job, self.data, self.tokenizer = job, data.dataset, tokenizer
        attention = model.config._attn_implementation
        contexts = job.contexts if data.contexts is None else data.contexts
        self.policy = policy.over(model, tokenizer, job.settings.rows_of_a_pass(job.device), contexts, job.inputs)
        model.set_attn_implementation(attention)  # the engine's own attention is for decoding alone
        self.rows = job.inputs.datasets[data.dataset]
        if not self.rows:
            raise ImprintError(f"arm '{job.arm}': dataset '{self.data}' has no rows to adapt on")
        for row in self.rows:
            self._check(row)

    def batch(self, number: int) -> list[dict[str, Any]]:
        """The rows of a step."""
        size = min(self.job.settings.batch_size, len(self.rows))
        end = (number + 1) * size
        return [self.rows[i] for i in order(len(self.rows), end / len(self.rows), self.job.seed)[number * size : end]]

    def ask(self, rows: Sequence[dict[str, Any]]) -> list[Question]:
        """The questions of rows, behind what the model now writes first."""
        dialogues = {place: self._turns(row) for place, row in enumerate(rows)}
        answers: dict[int, list[Outcome] | None] = dict.fromkeys(dialogues)
        asked: dict[int, Question] = {}
        while dialogues:
            requests = {place: self._step(rows[place], turns, answers[place]) for place, turns in dialogues.items()}
            for place, following in requests.items():
                if (request := _with_options(following)) is not None:
                    asked[place] = self._question(rows[place], request)
                    dialogues.pop(place).close()
            written = [(place, request) for place in dialogues for request in requests[place]]
            prompts: Any = [self.policy.prompt_for(request, NO_LIMIT) for _, request in written]
            responses = self.policy.engine.generate(prompts)
            answers = {place: [] for place in dialogues}
            for (place, _), response in zip(written, responses, strict=True):
                if response.error is not None:
                    raise ImprintError(f"{self._where(rows[place])}: {response.error}")
                answers[place] = [*(answers[place] or []), Outcome.of(response)]
        return [asked[place] for place in range(len(rows))]

    def _check(self, row: dict[str, Any]) -> None:
        """Look at a row before the first step, as far as the model has written nothing."""
        options = (row["reference"] or {}).get("options") if isinstance(row["reference"], dict) else None
        if not options or len(options) < 2:
            raise ImprintError(
                f"{self._where(row)} has no reference.options to be sure of; take a dataset of questions with options"
            )
        turns = self._turns(row)
        following = self._step(row, turns, None)
        turns.close()
        if (request := _with_options(following)) is not None:
            self._question(row, request)
            return
        longest = max(
            len(prompt_tokens(self.tokenizer, each)) + (each.max_new_tokens or 0) for each in following
        ) + max(len(chat_text.tokens(self.tokenizer, *chat_text.data(self.tokenizer, text))) for text in options)
        self._fits(row, longest)

    def _turns(self, row: dict[str, Any]) -> Turns:
        return self.policy.turns(row, Request(row["messages"], options=tuple(row["reference"]["options"])))

    def _step(self, row: dict[str, Any], turns: Turns, answers: list[Outcome] | None) -> list[Request]:
        try:
            following = step(turns, answers)
        except ImprintError as error:
            raise ImprintError(f"{self._where(row)}: {error}") from error
        if isinstance(following, Outcome):
            raise ImprintError(f"{self._where(row)}: the contexts end without asking for the options")
        return following

    def _question(self, row: dict[str, Any], request: Request) -> Question:
        try:
            text = chat_text.render(self.tokenizer, request.messages, request.prefill)
            prompt, options = chat_text.continued(self.tokenizer, text, request.options)
        except ImprintError as error:
            raise ImprintError(f"{self._where(row)}: {error}") from error
        self._fits(row, len(prompt) + max(map(len, options)))
        return Question(prompt, options)

    def _fits(self, row: dict[str, Any], size: int) -> None:
        if size > self.job.settings.max_length:
            raise ImprintError(
                f"{self._where(row)} may have {size} tokens, more than max_length: {self.job.settings.max_length}; "
                "write a larger one"
            )

    def _where(self, row: dict[str, Any]) -> str:
        return f"arm '{self.job.arm}': dataset '{self.data}', example {row['example_id']}"


def _with_options(requests: list[Request]) -> Request | None:
    return next((request for request in requests if request.options), None)


def passes(asked: list[Question], rows: int) -> Iterator[list[Question]]:
    """Questions in their order, as many at a time as have so many options together, and at least one."""
    batch: list[Question] = []
    for question in asked:
        if batch and sum(len(each.options) for each in (*batch, question)) > rows:
            yield batch
            batch = []
        batch.append(question)
    if batch:
        yield batch


def log_probabilities(model: Any, batch: list[Question], device: str) -> list[Any]:
    """For each question of a batch, the log-probabilities of its options: [options], fp32, with a graph, in nats. The
    probabilities of a question's options sum to 1."""
    import torch

    from imprint.training.token_loss import collate, labelled_logits

    rows = [
        {"input_ids": question.prompt + option, "labels": [IGNORED] * len(question.prompt) + option}
        for question in batch
        for option in question.options
    ]
    tensors = {name: tensor.to(device) for name, tensor in collate(rows).items()}
    head = model.get_output_embeddings()
    logits, targets = labelled_logits(model, head, tensors["input_ids"], tensors["labels"])
    token_logps = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    lengths = [len(option) for question in batch for option in question.options]
    likelihoods: Any = torch.stack([logps.sum() for logps in torch.split(token_logps, lengths)])
    counts = [len(question.options) for question in batch]
    return [of_question.log_softmax(0) for of_question in torch.split(likelihoods, counts)]


def objective(job: Fit, model: Any, tokenizer: Any, threshold: float | None) -> Objective:
    """The objective that makes the model surer of one option, summed over the datasets `data` and in nats.

    Without `threshold`, the loss is the mean over a step's questions of the entropy of the options. With it, the loss
    is the cross-entropy with the likeliest option, which counts if its probability is above the threshold; the mean is
    still over all questions."""
    datasets = [Questions(job, model, tokenizer, each) for each in job.settings.data]
    size = job.settings.rows_of_a_pass(job.device)
    read = 0

    def losses(number: int) -> Iterator[tuple[str, Any]]:
        nonlocal read
        read = 0
        for dataset in datasets:
            asked = sorted(dataset.ask(dataset.batch(number)), key=lambda question: len(question.prompt))
            read += sum(len(question.prompt) + len(option) for question in asked for option in question.options)
            for batch in passes(asked, size):
                value: Any = 0.0
                for logps in log_probabilities(model, batch, job.device):
                    if threshold is None:
                        value = value - (logps.exp() * logps).sum()
                    else:
                        value = value - logps.max() * (logps.detach().max().exp() > threshold)
                yield (dataset.data if len(datasets) > 1 else "loss"), value / len(asked)

    metrics = {"rows": sum(len(dataset.rows) for dataset in datasets)}
    return Objective(losses=losses, tokens=lambda _: read, check=None, metrics=metrics)
