"""TRL's SFTTrainer as a fit uses it. Imports torch: only fits import this module."""

from __future__ import annotations

from typing import Any

from trl.trainer.sft_trainer import SFTTrainer

from imprint.training.assistant_tokens import IGNORED
from imprint.training.token_loss import collate, cross_entropy

__all__ = ["Trainer", "collate"]


class Trainer(SFTTrainer):
    """SFTTrainer with the loss of every fit: the mean over the batch's labelled tokens."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # type: ignore[no-untyped-def]
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        loss = cross_entropy(model, head, inputs["input_ids"], inputs["labels"])
        return loss / max(1, int((inputs["labels"][:, 1:] != IGNORED).sum()))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: an arm's manifest says what it is."""

    def _send_telemetry(self) -> None:
        """None: a fit uses no network."""
