"""Objectives on the assistant's tokens, shared by the methods that learn coefficients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from imprint.assistant_tokens import IGNORED, Example
from imprint.learning import Objective
from imprint.methods import Fit
from imprint.methods.sft import examples, order


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
        found = order(len(self.rows), end / len(self.rows), self.job.seed)
        return [self.rows[i] for i in found[step * self.size : end]]

    def passes(self, rows: list[Example]) -> Iterator[tuple[Any, Any]]:
        """Input ids and labels in passes of `rows_at_once`, on the device, sorted by length to waste little padding."""
        from imprint.token_loss import collate

        rows, size = sorted(rows, key=lambda row: len(row.input_ids)), self.job.settings.rows_at_once
        for at in range(0, len(rows), size):
            batch = collate([row._asdict() for row in rows[at : at + size]])
            yield batch["input_ids"].to(self.job.device), batch["labels"].to(self.job.device)

    def losses(self, model: Any, step: int) -> Iterator[Any]:
        """Parts of the step's mean cross-entropy over its labelled tokens."""
        from imprint.token_loss import cross_entropy

        rows = self.batch(step)
        total = max(1, sum(labelled(row) for row in rows))
        for ids, labels in self.passes(rows):
            yield cross_entropy(model, model.get_output_embeddings(), ids, labels) / total

    def tokens(self, step: int) -> int:
        return sum(len(row.input_ids) for row in self.batch(step))


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
