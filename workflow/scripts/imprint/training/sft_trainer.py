"""TRL's SFTTrainer with the loss of our fits. Imports torch, so only fits import this module."""

from __future__ import annotations

from typing import Any

from trl.trainer.sft_trainer import SFTTrainer

from imprint.runtime.ranks import Ranks
from imprint.training.assistant_tokens import IGNORED
from imprint.training.sharded import Sharded
from imprint.training.token_loss import collate, cross_entropy

__all__ = ["ShardedTrainer", "Trainer", "collate"]


class Trainer(SFTTrainer):
    """SFTTrainer whose loss is the mean cross-entropy over the labelled tokens of a step, in nats. If a step is
    computed in parts, the loss of a part is its share of that mean. Of several ranks, the mean of their losses and
    gradients is that of the step."""

    loss_is_scaled_for_ga = True  # type: ignore[assignment]

    def __init__(self, ranks: Ranks, **options: Any) -> None:
        self._ranks = ranks
        super().__init__(**options)

    def get_batch_samples(self, epoch_iterator, num_batches, device):  # type: ignore[no-untyped-def]
        """The parts of the next step that this rank computes, and the number of labelled tokens in those of all
        ranks."""
        parts, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return parts, self._ranks.total(sum(int((part["labels"][:, 1:] != IGNORED).sum()) for part in parts))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # type: ignore[no-untyped-def]
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        loss = cross_entropy(model, head, inputs["input_ids"], inputs["labels"])
        return loss * self._ranks.size / max(1, num_items_in_batch)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: an arm's manifest describes it."""

    def _send_telemetry(self) -> None:
        """Send nothing: a fit uses no network."""


class ShardedTrainer(Sharded, Trainer):
    """The trainer of one of several ranks, which share the weights."""
