"""Objectives without labels: the model's certainty about the options of a question (`reference.options`).

The entropy of the next token of a prompt collapses easily. The entropy over options does not, because the model
chooses among given texts. Options are scored as in an eval, by their log-likelihood as the assistant's turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from imprint.composition.learning import Objective
from imprint.draws import order
from imprint.methods import Fit
from imprint.models import chat_text
from imprint.policies.dialogue import Request, prompt_tokens, single
from imprint.runtime.errors import ImprintError
from imprint.training.assistant_tokens import IGNORED


class Question(NamedTuple):
    """A question as token ids: the rendered prompt, and each option."""

    prompt: list[int]
    options: list[list[int]]


def questions(job: Fit, tokenizer: Any, data: str) -> list[Question]:
    """The rows of a dataset as questions under the fit's contexts. Raises ImprintError for a row without two options, a
    row longer than `max_length`, and an empty dataset."""
    encoded = []
    for row in job.inputs.datasets[data]:
        where = f"arm '{job.arm}': dataset '{data}', example {row['example_id']}"
        options = (row["reference"] or {}).get("options") if isinstance(row["reference"], dict) else None
        if not options or len(options) < 2:
            raise ImprintError(
                f"{where} has no reference.options to be sure of; take a dataset of questions with options"
            )
        try:
            request = single(job.contexts, row, Request(row["messages"]), job.inputs)
            prompt = prompt_tokens(tokenizer, request)
            option_ids = [chat_text.tokens(tokenizer, *chat_text.data(tokenizer, text)) for text in options]
        except ImprintError as error:
            raise ImprintError(f"{where}: {error}") from error
        if len(prompt) + max(map(len, option_ids)) > job.settings.max_length:
            raise ImprintError(f"{where} is longer than max_length: {job.settings.max_length}; write a larger one")
        encoded.append(Question(prompt, option_ids))
    if not encoded:
        raise ImprintError(f"arm '{job.arm}': dataset '{data}' has no rows to adapt on")
    return encoded


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


def objective(
    job: Fit, model: Any, tokenizer: Any, data: list[str], steps: int | None, threshold: float | None
) -> Objective:
    """The objective that makes the model surer of one option, summed over datasets and in nats.

    Without `threshold`, the loss is the mean over a step's questions of the entropy of the options. With it, the loss
    is the cross-entropy with the likeliest option, which counts if its probability is above the threshold; the mean is
    still over all questions. `steps` defaults to the setting `epochs`, counted in the largest dataset."""
    datasets = {name: questions(job, tokenizer, name) for name in data}
    size, at_once = job.settings.batch_size, job.settings.rows_at_once
    largest = max(map(len, datasets.values()))
    total = max(1, round(largest * job.settings.epochs / min(size, largest))) if steps is None else steps

    def batch(name: str, step: int) -> list[Question]:
        rows = datasets[name]
        count = min(size, len(rows))
        end = (step + 1) * count
        return [rows[i] for i in order(len(rows), end / len(rows), job.seed)[step * count : end]]

    def losses(step: int) -> Iterator[tuple[str, Any]]:
        for name in data:
            rows = sorted(batch(name, step), key=lambda question: len(question.prompt))
            for start in range(0, len(rows), at_once):
                value: Any = 0.0
                for logps in log_probabilities(model, rows[start : start + at_once], job.device):
                    if threshold is None:
                        value = value - (logps.exp() * logps).sum()
                    else:
                        value = value - logps.max() * (logps.detach().max().exp() > threshold)
                yield (name if len(data) > 1 else "loss"), value / len(rows)

    def tokens(step: int) -> int:
        rows = [question for name in data for question in batch(name, step)]
        return sum(len(question.prompt) + len(option) for question in rows for option in question.options)

    return Objective(total, total, losses, tokens, metrics={"rows": sum(map(len, datasets.values()))})
