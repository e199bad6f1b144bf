"""Supervised fine-tuning on dialogues, through TRL's SFTTrainer and PEFT. The loss is on the assistant's tokens only.
Weights are fp32, under bf16 autocast unless the dtype is float32.

Two arms that train on one dataset under different contexts take the same rows in the same order and the same number of
steps: the order depends on the seed and the rows' positions alone, and no row is left out. A row whose prompt alone
fills `max_length` keeps its place, adds nothing to the loss, and is counted.

Equal steps are not equal tokens, since a context may add some. For an arm that reads as many tokens as another one,
write `tokens` with the number in the other's manifest or report: it takes the same rows, and then more of them.

fit: {method: sft, data: dialogues, epochs: 1, lora: {rank: 16}}

LIMA's recipe (arXiv 2305.11206), for a 7B model: {batch_size: 32, epochs: 15, max_length: 2048, learning_rate: 1e-5,
final_learning_rate: 1e-6, weight_decay: 0.1, beta2: 0.95, residual_dropout: 0.2}.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import Any

from pydantic import Field, model_validator

from imprint.draws import order
from imprint.methods import Fit
from imprint.models import chains
from imprint.runtime.gpu_memory import Holds
from imprint.runtime.plugins import Inputs
from imprint.training import fits, residual_dropout
from imprint.training.assistant_tokens import EMPTY, IGNORED, Example
from imprint.training.examples import examples
from imprint.training.sharing import Shared

RATE, RATE_LORA = 1e-4, 1e-3
"""Learning rates of a full fit and with lora. On a 135M model, each lowers the held-out loss from 3.56 to about 3.2 in
12 steps of 4 rows."""


class Recipe(fits.RowTraining):
    """How rows are trained on, whichever they are."""

    epochs: float | None = Field(
        None,
        gt=0,
        description="passes over the rows; a part of one takes its first rows; null is 1 (ours), or as many as "
        "`tokens` needs",
    )
    tokens: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="instead of `epochs`: the tokens that are read in training, up to the end of the row that reaches "
        "them. The manifest and the report say how many an arm has read",
    )
    learning_rate: float | None = Field(
        None, gt=0, description=f"peak learning rate (ours); null is {RATE:g} for a full fit, {RATE_LORA:g} with lora"
    )
    final_learning_rate: float = Field(
        0.0, ge=0, description="learning rate at the end of a linear schedule (LIMA takes 1e-6, a tenth of its peak)"
    )
    beta2: float = Field(
        0.999, ge=0, lt=1, description="AdamW's decay of the squared gradients (torch's default; LIMA takes 0.95)"
    )
    residual_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="dropout of what attention and MLP add to the residual stream, at the top layer; it rises linearly "
        "from 0 at the bottom layer (ours: none; LIMA takes 0.3 for 65B and 0.2 for smaller models)",
    )

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        return self.learning_rate or (RATE_LORA if self.lora else RATE)

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.final_learning_rate and (self.schedule != "linear" or self.final_learning_rate >= self.rate):
            raise ValueError(
                f"final_learning_rate: found {self.final_learning_rate:g} with `schedule: {self.schedule}` and a "
                f"peak of {self.rate:g}; write a rate below the peak, with `schedule: linear`"
            )
        if self.epochs is not None and self.tokens is not None:
            raise ValueError("epochs and tokens both say how long the fit is; write one of them")
        return self


class Settings(Recipe):
    data: str = Field(description="dataset of dialogues with assistant turns")


def inputs(settings: Settings) -> Inputs:
    """The dataset."""
    return Inputs(datasets=(settings.data,))


def makes(settings: Recipe) -> str:
    """An adapter, or all weights."""
    return "lora" if settings.lora else "full"


def holds(settings: Recipe, ranks: int) -> Holds:
    """All logits of the labelled tokens of a pass (`token_loss.labelled_logits`)."""
    return Holds(
        trained="adapter" if settings.lora else "weights",
        adapter=settings.adapter,
        rows=settings.rows_of_pass(settings.batch_size // ranks),
        tokens=settings.max_length,
        recomputes=settings.gradient_checkpointing,
    )


def shared(settings: Recipe) -> Shared:
    """The rows of an update."""
    return Shared(settings.batch_size, "rows", "batch_size")


def in_order(rows: list[Example], settings: Recipe, seed: int) -> list[Example]:
    """The rows in training order, as many as the settings say."""
    if settings.tokens is None:
        return [rows[i] for i in order(len(rows), settings.epochs or 1.0, seed)]
    epochs = math.ceil(settings.tokens / sum(len(row.input_ids) for row in rows))
    ordered = [rows[i] for i in order(len(rows), epochs, seed)]
    read = list(accumulate(len(row.input_ids) for row in ordered))
    return ordered[: bisect_left(read, settings.tokens) + 1]


def arguments(job: Fit, steps: int) -> Any:
    """TRL's settings."""
    from trl.trainer.sft_config import SFTConfig

    of_rank = job.settings.batch_size // job.ranks.size
    size = job.settings.rows_of_pass(of_rank)
    shared = {**fits.arguments(job, steps, job.settings.rate), "adam_beta2": job.settings.beta2}
    if job.settings.final_learning_rate:
        end = {"lr_end": job.settings.final_learning_rate, "power": 1.0}
        shared |= {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": end}
    return SFTConfig(
        **shared,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=of_rank // size,
        train_sampling_strategy="sequential",  # the dataset is in `draws.order` already
        max_length=None,  # rows are cut and counted before
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def trainer(job: Fit, model: Any, tokenizer: Any, rows: list[Example]) -> tuple[Any, Any]:
    """The trainer and its callback. `rows` are in training order."""
    import datasets

    from imprint.training.fit_watch import Watch
    from imprint.training.sft_trainer import ShardedTrainer, Trainer, collate

    if job.ranks.size > 1:  # the last update is whole, so that all ranks make as many passes
        rows = rows + [EMPTY] * (-len(rows) % job.settings.batch_size)
    kind = ShardedTrainer if job.ranks.size > 1 else Trainer
    watch = Watch(job, {name: name for name in ("loss", "learning_rate", "grad_norm")})
    model.name_or_path = ""  # otherwise an adapter names the folder that its model was read from
    with fits.adapter_errors(job):
        run = kind(
            job.ranks,
            model=model,
            args=arguments(job, math.ceil(len(rows) / job.settings.batch_size)),
            data_collator=collate,
            train_dataset=datasets.Dataset.from_dict(
                {"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]}
            ),
            processing_class=tokenizer,
            callbacks=[watch],
            peft_config=fits.lora_config(job.settings.lora),
        )
    return run, watch


def fit(job: Fit) -> dict[str, Any]:
    """Train, going on from the last whole checkpoint in `job.folder`, and write weights and curves under `job.out`.
    Returns the metrics for the manifest."""
    return on_rows(job, job.settings.data)


def on_rows(job: Fit, data: str) -> dict[str, Any]:
    """The fit on the dialogues that `job.inputs` holds as the dataset `data`, by the settings of a `Recipe`."""
    fits.begin(job)
    model, tokenizer = chains.load(job.manifests, "float32", job.device, job.ranks.size)
    if job.settings.residual_dropout:
        residual_dropout.install(model, job.settings.residual_dropout, job.arm)
    dataset = examples(job, tokenizer, data)
    rows = in_order(dataset, job.settings, job.seed)
    with fits.quiet():
        run, watch = trainer(job, model, tokenizer, rows)
        fits.train(job, run, watch)
    size = job.settings.batch_size
    tokens = [sum(len(row.input_ids) for row in rows[i : i + size]) for i in range(0, len(rows), size)]
    for step, count in enumerate(tokens, 1):
        watch.curves.add(step, {"tokens": count})
    watch.curves.write()
    losses = watch.curves.of("loss")
    metrics = {
        "steps": len(losses),
        "rows": len(dataset),
        "tokens": sum(tokens),
        "assistant_tokens": sum(label != IGNORED for row in rows for label in row.labels),
        "truncated_rows": sum(row.full > job.settings.max_length for row in dataset),
        "unlabelled_rows": sum(all(label == IGNORED for label in row.labels) for row in dataset),
        "first_loss": losses[0],
        "final_loss": losses[-1],
    }
    return metrics
