"""Objectives on the assistant's tokens, for methods that learn coefficients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from imprint.composition.learning import Objective, autocast
from imprint.draws import order
from imprint.methods import Fit
from imprint.training.assistant_tokens import IGNORED, Example
from imprint.training.examples import examples


class Stream:
    """The encoded rows of a dataset in batches of `batch_size`. Each epoch has its own shuffle, and epochs follow each
    other for as many steps as are used. `steps` is the number of steps in `epochs` epochs."""

    def __init__(self, job: Fit, tokenizer: Any, data: str) -> None:
        self.job, self.data = job, data
        self.rows = examples(job, tokenizer, data)
        self.size = min(job.settings.batch_size, len(self.rows))
        self.steps_an_epoch = math.ceil(len(self.rows) / self.size)
        self.steps = max(1, round(len(self.rows) * job.settings.epochs / self.size))

    def batch(self, step: int) -> list[Example]:
        """The rows of a step, which are the same at every call."""
        end = (step + 1) * self.size
        indices = order(len(self.rows), end / len(self.rows), self.job.seed)
        return [self.rows[i] for i in indices[step * self.size : end]]

    def passes(self, rows: list[Example]) -> Iterator[tuple[Any, Any]]:
        """Input ids and labels of `rows_at_once` rows at a time, on the device. Rows of similar length share a pass, so
        that there is little padding."""
        from imprint.training.token_loss import collate

        rows, size = sorted(rows, key=lambda row: len(row.input_ids)), self.job.settings.rows_at_once
        for start in range(0, len(rows), size):
            batch = collate([row._asdict() for row in rows[start : start + size]])
            yield batch["input_ids"].to(self.job.device), batch["labels"].to(self.job.device)

    def losses(self, model: Any, step: int) -> Iterator[Any]:
        """Parts of the step's loss, one for each pass. Their sum is the mean cross-entropy over the step's labelled
        tokens, in nats."""
        from imprint.training.token_loss import cross_entropy

        rows = self.batch(step)
        total = max(1, sum(labelled(row) for row in rows))
        for ids, labels in self.passes(rows):
            yield cross_entropy(model, model.get_output_embeddings(), ids, labels) / total

    def tokens(self, step: int) -> int:
        """The number of tokens in a step's rows."""
        return sum(len(row.input_ids) for row in self.batch(step))


def negation(job: Fit, model: Any, tokenizer: Any) -> Objective:
    """The objective that unlearns the dataset `data` (the target) and keeps the dataset `control`.

    The loss is the mean of -min(cross-entropy, bound) over the target's labelled tokens, plus the control's mean
    cross-entropy. `bound` defaults to the entropy of uniform guesses over the vocabulary. Learning stops when the
    control's token accuracy falls below `keep` times its value at the start."""
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
        for part in control.losses(model, step):
            yield "control", part

    def accuracy() -> float:
        right = total = 0
        for ids, labels in control.passes(control.rows):
            logits, targets = labelled_logits(model, head, ids, labels)
            right += int((logits.argmax(1) == targets).sum())
            total += len(targets)
        return right / max(1, total)

    def holds() -> bool:
        control_accuracy = accuracy()
        if control_accuracy >= s.keep * metrics["control_accuracy_start"]:
            metrics["control_accuracy"] = control_accuracy
            return True
        return False

    with torch.no_grad():
        metrics["control_accuracy_start"] = metrics["control_accuracy"] = accuracy()
    return Objective(
        steps=target.steps,
        steps_an_epoch=target.steps_an_epoch,
        losses=losses,
        tokens=lambda step: target.tokens(step) + control.tokens(step),
        holds=holds,
        metrics=metrics,
    )


def labelled(row: Example) -> int:
    """The number of tokens of a row that have a loss. The first token has none, since nothing predicts it."""
    return sum(label != IGNORED for label in row.labels[1:])


def supervised(job: Fit, model: Any, tokenizer: Any, data: list[str]) -> Objective:
    """The objective that sums the mean cross-entropy over datasets: few-shot learning with one dataset, task addition
    with several."""
    streams = [Stream(job, tokenizer, name) for name in data]

    def losses(step: int) -> Iterator[tuple[str, Any]]:
        for stream in streams:
            for part in stream.losses(model, step):
                yield (stream.data if len(streams) > 1 else "loss"), part

    return Objective(
        steps=max(stream.steps for stream in streams),
        steps_an_epoch=max(stream.steps_an_epoch for stream in streams),
        losses=losses,
        tokens=lambda step: sum(stream.tokens(step) for stream in streams),
        metrics={
            "rows": sum(len(stream.rows) for stream in streams),
            "truncated_rows": sum(row.full > job.settings.max_length for s in streams for row in s.rows),
        },
    )


def mean_loss(job: Fit, model: Any, tokenizer: Any, data: str) -> float:
    """The mean cross-entropy over the labelled tokens of all rows of a dataset, in nats."""
    import torch

    from imprint.training.token_loss import collate, cross_entropy

    rows, size = sorted(examples(job, tokenizer, data), key=lambda row: len(row.input_ids)), job.settings.rows_at_once
    total = 0.0
    with torch.no_grad(), autocast(job):
        for start in range(0, len(rows), size):
            batch = collate([row._asdict() for row in rows[start : start + size]])
            ids, labels = batch["input_ids"].to(job.device), batch["labels"].to(job.device)
            total += float(cross_entropy(model, model.get_output_embeddings(), ids, labels))
    return total / max(1, sum(labelled(row) for row in rows))
