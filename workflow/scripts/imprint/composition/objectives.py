"""Objectives on the assistant's tokens, for methods that learn coefficients, and the loss by which a method chooses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from imprint.composition.learning import Objective
from imprint.composition.settings import Rows
from imprint.draws import order
from imprint.methods import Fit
from imprint.training.assistant_tokens import EMPTY, IGNORED, Example
from imprint.training.examples import examples


class Stream:
    """The encoded rows of a dataset under its contexts, in batches of `batch_size`. Each pass over the rows has its own
    shuffle, and passes follow each other for as many steps as are used."""

    def __init__(self, job: Fit, tokenizer: Any, data: Rows) -> None:
        self.job, self.data = job, data.dataset
        self.rows = encoded(job, tokenizer, data)

    def batch(self, step: int) -> list[Example]:
        """The rows of a step, which are the same at every call."""
        size = min(self.job.settings.batch_size, len(self.rows))
        end = (step + 1) * size
        indices = order(len(self.rows), end / len(self.rows), self.job.seed)
        return [self.rows[i] for i in indices[step * size : end]]

    def passes(self, rows: list[Example]) -> Iterator[tuple[Any, Any]]:
        """Input ids and labels of a pass's rows at a time, on the device: of this rank's share of the rows. Rows
        of similar length share a pass, so that there is little padding."""
        from imprint.training.token_loss import collate

        ranks, size = self.job.ranks, self.job.settings.rows_of_a_pass(self.job.device)
        rows = sorted([*rows, *[EMPTY] * (-len(rows) % ranks.size)], key=lambda row: len(row.input_ids))
        rows = rows[ranks.place :: ranks.size]
        for start in range(0, len(rows), size):
            batch = collate([row._asdict() for row in rows[start : start + size]])
            yield batch["input_ids"].to(self.job.device), batch["labels"].to(self.job.device)

    def losses(self, model: Any, rows: list[Example]) -> Iterator[Any]:
        """Parts of the loss of rows, one for each pass. Their sum over all ranks is the mean cross-entropy over the
        rows' labelled tokens, in nats."""
        from imprint.training.token_loss import cross_entropy

        total = max(1, sum(labelled(row) for row in rows))
        for ids, labels in self.passes(rows):
            yield cross_entropy(model, model.get_output_embeddings(), ids, labels) / total

    def accuracy(self, model: Any) -> float:
        """The share of the labelled tokens of all rows that the model finds likeliest."""
        from imprint.training.token_loss import labelled_logits

        right = total = 0
        for ids, labels in self.passes(self.rows):
            logits, targets = labelled_logits(model, model.get_output_embeddings(), ids, labels)
            right += int((logits.argmax(1) == targets).sum())
            total += len(targets)
        return self.job.ranks.total(right) / max(1, self.job.ranks.total(total))

    def tokens(self, step: int) -> int:
        """The number of tokens in a step's rows."""
        return sum(len(row.input_ids) for row in self.batch(step))


def encoded(job: Fit, tokenizer: Any, data: Rows) -> list[Example]:
    """Tokens and labels of every row of a dataset, under its contexts or the fit's."""
    contexts = job.contexts if data.contexts is None else data.contexts
    return examples(replace(job, contexts=contexts), tokenizer, data.dataset)


def negation(job: Fit, model: Any, tokenizer: Any) -> Objective:
    """The objective that unlearns the dataset `data` (the target) and keeps the dataset `control`.

    The loss is the mean of -min(cross-entropy, bound) over the target's labelled tokens, plus the control's mean
    cross-entropy. `bound` defaults to the entropy of uniform guesses over the vocabulary. A check gives the target's
    token accuracy, so that the lowest is kept. It ends the fit once the control's token accuracy is below `keep` times
    its value at the start."""
    import torch

    from imprint.training.token_loss import labelled_logits

    s = job.settings
    target, control = Stream(job, tokenizer, s.data), Stream(job, tokenizer, s.control)
    bound = math.log(model.config.vocab_size) if s.bound is None else s.bound
    head = model.get_output_embeddings()
    metrics: dict[str, Any] = {"rows": len(target.rows), "control_rows": len(control.rows)}

    def losses(step: int) -> Iterator[tuple[str, Any]]:
        rows = target.batch(step)
        total = max(1, sum(labelled(row) for row in rows))
        for ids, labels in target.passes(rows):
            logits, targets = labelled_logits(model, head, ids, labels)
            cross_entropies = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
            yield "target", -cross_entropies.clamp(max=bound).sum() / total
        for part in control.losses(model, control.batch(step)):
            yield "control", part

    def check() -> dict[str, float] | None:
        kept = control.accuracy(model)
        metrics.setdefault("control_accuracy_start", kept)
        if kept < s.keep * metrics["control_accuracy_start"]:
            return None
        return {"target_accuracy": target.accuracy(model), "control_accuracy": kept}

    return Objective(
        losses=losses, tokens=lambda step: target.tokens(step) + control.tokens(step), check=check, metrics=metrics
    )


def labelled(row: Example) -> int:
    """The number of tokens of a row that have a loss. The first token has none, since nothing predicts it."""
    return sum(label != IGNORED for label in row.labels[1:])


def supervised(job: Fit, model: Any, tokenizer: Any) -> Objective:
    """The objective that sums the mean cross-entropy over the datasets `data`: few-shot learning with one dataset, task
    addition with several. With `validation`, a check gives the same sum over its rows."""
    s = job.settings
    streams = [Stream(job, tokenizer, each) for each in s.data]

    def losses(step: int) -> Iterator[tuple[str, Any]]:
        for stream in streams:
            for part in stream.losses(model, stream.batch(step)):
                yield (stream.data if len(streams) > 1 else "loss"), part

    rows = [row for stream in streams for row in stream.rows]
    of_validation = None if s.validation is None else total_loss(job, model, tokenizer, s.validation)
    return Objective(
        losses=losses,
        tokens=lambda step: sum(stream.tokens(step) for stream in streams),
        check=None if of_validation is None else lambda: {"validation_loss": of_validation()},
        metrics={"rows": len(rows), "truncated_rows": sum(row.full > s.max_length for row in rows)},
    )


def total_loss(job: Fit, model: Any, tokenizer: Any, data: Sequence[Rows]) -> Callable[[], float]:
    """A function that gives the sum, over datasets, of the mean cross-entropy over the labelled tokens of all rows, in
    nats."""
    import torch

    streams = [Stream(job, tokenizer, each) for each in data]

    def loss() -> float:
        with torch.no_grad():
            of_rank = sum(float(part) for stream in streams for part in stream.losses(model, stream.rows))
        return float(job.ranks.sum(torch.tensor(of_rank, dtype=torch.float64)))

    return loss
