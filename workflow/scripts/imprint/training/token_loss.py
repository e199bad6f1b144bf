"""Rows to batches, and the loss on the assistant's tokens, as every fit takes them. Imports torch: only fits import
this module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from imprint.training.assistant_tokens import IGNORED


def collate(batch: Sequence[Mapping[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Rows padded on the right to the longest of them. There is no attention mask: behind a causal mask no token sees
    the padding after it, and padding is never labelled. So an end token that doubles as padding stays labelled where it
    ends a turn, and attention takes its fast path."""
    longest = max(len(row["input_ids"]) for row in batch)

    def padded(column: str, value: int) -> torch.Tensor:
        return torch.tensor([row[column] + [value] * (longest - len(row[column])) for row in batch])

    return {"input_ids": padded("input_ids", 0), "labels": padded("labels", IGNORED)}


def labelled_logits(
    model: Any, head: Any, input_ids: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits [labelled tokens, vocabulary] in fp32, their targets). The output layer sees the labelled positions only:
    with a vocabulary of 49 thousand it is a fifth of a small model's work and most of its memory. The model's own
    forward makes the logits, so whatever an architecture does to them is kept."""
    labelled = labels[:, 1:] != IGNORED
    hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][:, :-1][labelled],))
    try:
        logits = model(input_ids=input_ids, use_cache=False).logits
    finally:
        hook.remove()
    return logits.float(), labels[:, 1:][labelled]


def cross_entropy(model: Any, head: Any, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The sum over labelled tokens, in nats; 0, with a graph, where there is none."""
    logits, targets = labelled_logits(model, head, input_ids, labels)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
