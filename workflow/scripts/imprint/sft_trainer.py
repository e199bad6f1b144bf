"""TRL's SFTTrainer as a fit uses it, and what goes on around its steps. Imports torch: only fits import this module."""

from __future__ import annotations

import math
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback
from trl.trainer.sft_trainer import SFTTrainer

from imprint import checkpoints
from imprint.assistant_tokens import IGNORED
from imprint.errors import ImprintError
from imprint.methods import Fit


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


class Watch(TrainerCallback):
    """The bar, the checkpoints, and a stop when the loss is lost."""

    def __init__(self, job: Fit) -> None:
        self.job = job
        self.bar: Any = None

    def on_train_begin(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc=f"{self.job.arm} seed {self.job.seed}", unit="step"
        )

    def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        self.bar.update(1)
        control.should_save = state.global_step % self.job.settings.checkpoint_steps == 0
        control.should_save &= state.global_step < state.max_steps  # then the weights themselves are written

    def on_log(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        logs = kwargs["logs"]
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise ImprintError(
                    f"arm '{self.job.arm}': the {name} is {logs[name]} at step {state.global_step} of "
                    f"{state.max_steps}; write a smaller learning_rate than {args.learning_rate:g}"
                )
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_save(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
        checkpoints.seal(self.job.folder, state.global_step)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
