"""Batches of rows, and the loss on the assistant's tokens. Imports torch, so only fits import this module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from imprint.training.assistant_tokens import IGNORED


def collate(batch: Sequence[Mapping[str, list[int]]]) -> dict[str, torch.Tensor]:
    """`input_ids` and `labels` of the rows, [rows, longest row], padded on the right. No attention mask is needed:
    under a causal mask no token sees the padding after it, and padding has no labels. Without a mask, attention takes
    its fast path. An end token that also serves as padding keeps its label at the end of a turn."""
    longest = max(len(row["input_ids"]) for row in batch)

    def padded(column: str, value: int) -> torch.Tensor:
        return torch.tensor([row[column] + [value] * (longest - len(row[column])) for row in batch])

    return {"input_ids": padded("input_ids", 0), "labels": padded("labels", IGNORED)}


def labelled_logits(
    model: Any, head: Any, input_ids: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [labelled tokens, vocabulary] in fp32, and their targets [labelled tokens]. `head` is the model's output
    layer. It computes the labelled positions only: for a vocabulary of 49,000, the output layer is a fifth of a small
    model's work and most of its memory. The model's own forward pass computes the logits, so what an architecture does
    to them (such as scaling) is kept."""
    labelled = labels[:, 1:] != IGNORED
    hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][:, :-1][labelled],))
    try:
        logits = model(input_ids=input_ids, use_cache=False).logits
    finally:
        hook.remove()
    return logits.float(), labels[:, 1:][labelled]


def cross_entropy(model: Any, head: Any, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The sum of the cross-entropy over the labelled tokens, in nats. Without labelled tokens it is 0, with a graph."""
    logits, targets = labelled_logits(model, head, input_ids, labels)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
