"""TRL's DPOTrainer on pairs that are tokens already. Imports torch, so only fits import this module."""

from __future__ import annotations

import copy
from typing import Any

from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from imprint.methods import Fit

REWARDS = ("rewards/margins", "rewards/accuracies", "rewards/chosen", "rewards/rejected")
"""TRL's names of the quantities that are means over pairs."""


class Trainer(DPOTrainer):
    """DPOTrainer whose loss is the mean over the pairs of a step, in nats. If a step is computed in parts, the loss of
    a part is its share of that mean.

    The reference is the model as it is now. With an adapter, TRL switches the adapter off to compute it; else a copy of
    the weights is kept, where TRL would load a model by its hub name."""

    loss_is_scaled_for_ga = True  # type: ignore[assignment]

    def __init__(self, job: Fit, model: Any, **options: Any) -> None:
        reference = copy.deepcopy(model).eval().requires_grad_(False) if job.settings.lora is None else None
        collator = DataCollatorForPreference(pad_token_id=0)  # an attention mask leaves the padding out
        super().__init__(model=model, ref_model=reference, data_collator=collator, **options)
        self._pairs: list[int] = []
        """The number of pairs in each part of the step."""

    def _prepare_dataset(self, dataset, *_, **__):  # type: ignore[no-untyped-def]
        """The dataset as it is: tokens, cut and counted."""
        return dataset

    def get_batch_samples(self, epoch_iterator, num_batches, device):  # type: ignore[no-untyped-def]
        """The parts of the next step, and the number of pairs in all of them."""
        parts, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return parts, sum(len(part["input_ids"]) // 2 for part in parts)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # type: ignore[no-untyped-def]
        pairs = len(inputs["input_ids"]) // 2  # the chosen answers, then the rejected ones
        self._pairs.append(pairs)
        loss = super().compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        return loss * pairs / num_items_in_batch

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL logs the plain mean over the parts of a step. Here each part counts by its pairs."""
        metrics = self._metrics["train"]
        for name in REWARDS:
            if values := metrics[name]:
                weighted = [value * pairs for value, pairs in zip(values, self._pairs, strict=True)]
                metrics[name] = [sum(weighted) / sum(self._pairs)]
            else:
                del metrics[name]
        self._pairs.clear()
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: an arm's manifest describes it."""

    def _send_telemetry(self) -> None:
        """Send nothing: a fit uses no network."""
