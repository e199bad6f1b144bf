"""Objectives without labels, over the options of a question (`reference.options`): how sure is the model of one of
them?

Next-token entropy on prompts collapses easily; over options it cannot: the model chooses among given texts. A row's
options are scored as an eval scores them, by the log-likelihood of each as the assistant's turn.
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
    """Token ids of the rendered prompt and of each option."""

    prompt: list[int]
    options: list[list[int]]


def questions(job: Fit, tokenizer: Any, data: str) -> list[Question]:
    """The rows of a dataset as they are put to the model."""
    prepared = []
    for row in job.inputs.datasets[data]:
        where = f"arm '{job.arm}': dataset '{data}', example {row['example_id']}"
        options = (row["reference"] or {}).get("options") if isinstance(row["reference"], dict) else None
        if not options or len(options) < 2:
            raise ImprintError(
                f"{where} has no reference.options to be sure of; take a dataset of questions with options"
            )
        try:
            request = single(job.contexts, row, Request(row["messages"]), job.inputs)
            ids = prompt_tokens(tokenizer, request)
            ends = [chat_text.tokens(tokenizer, *chat_text.data(tokenizer, text)) for text in options]
        except ImprintError as error:
            raise ImprintError(f"{where}: {error}") from error
        if len(ids) + max(map(len, ends)) > job.settings.max_length:
            raise ImprintError(f"{where} is longer than max_length: {job.settings.max_length}; write a larger one")
        prepared.append(Question(ids, ends))
    if not prepared:
        raise ImprintError(f"arm '{job.arm}': dataset '{data}' has no rows to adapt on")
    return prepared


def log_probabilities(model: Any, asked: list[Question], device: str) -> list[Any]:
    """For each question the log-probabilities of its options (they sum to 1), fp32, with a graph."""
    import torch

    from imprint.training.token_loss import collate, labelled_logits

    rows = [
        {"input_ids": one.prompt + option, "labels": [IGNORED] * len(one.prompt) + option}
        for one in asked
        for option in one.options
    ]
    batch = {name: tensor.to(device) for name, tensor in collate(rows).items()}
    head = model.get_output_embeddings()
    logits, targets = labelled_logits(model, head, batch["input_ids"], batch["labels"])
    each = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    lengths = [len(option) for one in asked for option in one.options]
    sums: Any = torch.stack([part.sum() for part in torch.split(each, lengths)])
    return [part.log_softmax(0) for part in torch.split(sums, [len(one.options) for one in asked])]


def objective(
    job: Fit, model: Any, tokenizer: Any, data: list[str], steps: int | None, threshold: float | None
) -> Objective:
    """The sum over datasets of the mean over a step's questions of the entropy of the options (nats); with a
    `threshold`, of the cross-entropy with the likeliest option where its probability is above it."""
    sets = {name: questions(job, tokenizer, name) for name in data}
    size, at_once = job.settings.batch_size, job.settings.rows_at_once
    longest = max(map(len, sets.values()))
    total = max(1, round(longest * job.settings.epochs / min(size, longest))) if steps is None else steps

    def batch(name: str, step: int) -> list[Question]:
        rows = sets[name]
        take = min(size, len(rows))
        end = (step + 1) * take
        return [rows[i] for i in order(len(rows), end / len(rows), job.seed)[step * take : end]]

    def losses(step: int) -> Iterator[tuple[str, Any]]:
        for name in data:
            asked = sorted(batch(name, step), key=lambda one: len(one.prompt))
            for at in range(0, len(asked), at_once):
                value: Any = 0.0
                for part in log_probabilities(model, asked[at : at + at_once], job.device):
                    if threshold is None:
                        value = value - (part.exp() * part).sum()
                    else:
                        value = value - part.max() * (part.detach().max().exp() > threshold)
                yield (name if len(data) > 1 else "loss"), value / len(asked)

    def tokens(step: int) -> int:
        asked = [one for name in data for one in batch(name, step)]
        return sum(len(one.prompt) + len(option) for one in asked for option in one.options)

    return Objective(total, total, losses, tokens, metrics={"rows": sum(map(len, sets.values()))})
