"""Objectives on the assistant's tokens, shared by the methods that learn coefficients."""

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
    """One dataset's rows in training order, `batch_size` a step for as many steps as asked: each epoch a shuffle of its
    own, begun anew until the last step."""

    def __init__(self, job: Fit, tokenizer: Any, data: str) -> None:
        self.job, self.data = job, data
        self.rows = examples(job, tokenizer, data)
        self.size = min(job.settings.batch_size, len(self.rows))
        self.steps_an_epoch = math.ceil(len(self.rows) / self.size)
        self.steps = max(1, round(len(self.rows) * job.settings.epochs / self.size))

    def batch(self, step: int) -> list[Example]:
        """The rows of a step, the same whenever it is asked for."""
        end = (step + 1) * self.size
        indices = order(len(self.rows), end / len(self.rows), self.job.seed)
        return [self.rows[i] for i in indices[step * self.size : end]]

    def passes(self, rows: list[Example]) -> Iterator[tuple[Any, Any]]:
        """Input ids and labels in passes of `rows_at_once`, on the device, sorted by length to waste little padding."""
        from imprint.training.token_loss import collate

        rows, size = sorted(rows, key=lambda row: len(row.input_ids)), self.job.settings.rows_at_once
        for at in range(0, len(rows), size):
            batch = collate([row._asdict() for row in rows[at : at + size]])
            yield batch["input_ids"].to(self.job.device), batch["labels"].to(self.job.device)

    def losses(self, model: Any, step: int) -> Iterator[Any]:
        """Parts of the step's mean cross-entropy over its labelled tokens."""
        from imprint.training.token_loss import cross_entropy

        rows = self.batch(step)
        total = max(1, sum(labelled(row) for row in rows))
        for ids, labels in self.passes(rows):
            yield cross_entropy(model, model.get_output_embeddings(), ids, labels) / total

    def tokens(self, step: int) -> int:
        return sum(len(row.input_ids) for row in self.batch(step))


def negation(job: Fit, model: Any, tokenizer: Any) -> Objective:
    """Unlearn `data`, keep `control`: the mean of -min(cross-entropy, bound) over the target's labelled tokens plus the
    control's mean cross-entropy, for as long as the control's token accuracy is at least `keep` of the start's."""
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
            logits, wanted = labelled_logits(model, head, ids, labels)
            each = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
            yield "target", -each.clamp(max=bound).sum() / total
        for part in control.losses(model, step):
            yield "control", part

    def accuracy() -> float:
        right = total = 0
        for ids, labels in control.passes(control.rows):
            logits, wanted = labelled_logits(model, head, ids, labels)
            right, total = right + int((logits.argmax(1) == wanted).sum()), total + len(wanted)
        return right / max(1, total)

    def holds() -> bool:
        kept = accuracy()
        if kept >= s.keep * metrics["control_accuracy_start"]:
            metrics["control_accuracy"] = kept
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
    """The tokens of a row that count."""
    return sum(label != IGNORED for label in row.labels[1:])


def supervised(job: Fit, model: Any, tokenizer: Any, data: list[str]) -> Objective:
    """The sum over datasets of the mean cross-entropy: few-shot learning with one, task addition with several."""
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
    """Mean cross-entropy over the labelled tokens of all rows, without a graph."""
    import torch

    from imprint.training.token_loss import collate, cross_entropy

    rows, size = sorted(examples(job, tokenizer, data), key=lambda row: len(row.input_ids)), job.settings.rows_at_once
    total = 0.0
    with torch.no_grad(), autocast(job):
        for at in range(0, len(rows), size):
            batch = {name: t.to(job.device) for name, t in collate([r._asdict() for r in rows[at : at + size]]).items()}
            total += float(cross_entropy(model, model.get_output_embeddings(), batch["input_ids"], batch["labels"]))
    return total / max(1, sum(labelled(row) for row in rows))
