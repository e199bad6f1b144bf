"""TRL's SFTTrainer as a fit uses it. Imports torch: only fits import this module."""

from __future__ import annotations

from typing import Any

import torch
from trl.trainer.sft_trainer import SFTTrainer

from imprint.assistant_tokens import IGNORED


def collate(batch: list[dict[str, list[int]]]) -> dict[str, Any]:
    """Rows padded on the right to the longest of them. There is no attention mask: behind a causal mask no token sees
    the padding after it, and padding is never labelled. So an end token that doubles as padding stays labelled where it
    ends a turn, and attention takes its fast path."""
    longest = max(len(row["input_ids"]) for row in batch)

    def padded(column: str, value: int) -> torch.Tensor:
        return torch.tensor([row[column] + [value] * (longest - len(row[column])) for row in batch])

    return {"input_ids": padded("input_ids", 0), "labels": padded("labels", IGNORED)}


class Trainer(SFTTrainer):
    """SFTTrainer whose output layer sees the labelled positions only: with a vocabulary of 49 thousand it is a
    fifth of this model's work and most of its memory. The model's own forward makes the logits, so whatever an
    architecture does to them is kept."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # type: ignore[no-untyped-def]
        labelled = inputs["labels"][:, 1:] != IGNORED
        targets = inputs["labels"][:, 1:][labelled]
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][:, :-1][labelled],))
        try:
            logits = model(input_ids=inputs["input_ids"], use_cache=False).logits
        finally:
            hook.remove()
        loss = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
        return loss / max(1, len(targets))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: an arm's manifest says what it is."""

    def _send_telemetry(self) -> None:
        """None: a fit uses no network."""
