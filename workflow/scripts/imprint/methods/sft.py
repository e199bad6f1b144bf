"""Supervised fine-tuning on dialogues, through TRL's SFTTrainer and PEFT: loss on the assistant's tokens only, fp32
weights (under bf16 autocast unless the dtype is float32).

Two arms that train on the same dataset under different contexts take the same rows in the same order and the same
number of steps: the order comes from the seed and the rows' positions alone, and no row is ever left out. A row whose
prompt alone fills `max_length` keeps its place, adds nothing to the loss, and is counted.

fit: {method: sft, data: dialogues, epochs: 1, lora: {rank: 16}}
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from imprint import checkpoints, models, tables
from imprint.assistant_tokens import IGNORED, Example, encode
from imprint.contexts import Message
from imprint.errors import ImprintError
from imprint.methods import Fit, Inputs
from imprint.plugins import Strict

RATE, RATE_LORA = 1e-4, 1e-3
"""By measurement on a 135M model: either lowers the held-out loss from 3.56 to about 3.2 in 12 steps of 4 rows."""


class Lora(Strict):
    """A low-rank adapter (arXiv 2106.09685) instead of new weights."""

    rank: int = Field(16, ge=1, description="rank of the adapter's matrices (ours)")
    alpha: int = Field(32, ge=1, description="the adapter's output is scaled by alpha / rank (ours: twice the rank)")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapter (ours: none, since fits are short)")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="layers that get one: every linear layer but the output layer, or their names (ours)"
    )


class Settings(Strict):
    data: str = Field(description="dataset of dialogues with assistant turns")
    epochs: float = Field(1.0, gt=0, description="passes over the rows; a part of one takes its first rows (ours)")
    batch_size: int = Field(8, ge=1, description="rows a step (ours; LIMA, arXiv 2305.11206, takes 32)")
    max_length: int = Field(
        192, ge=8, description="tokens a row; longer rows are cut at the end and counted (ours, small for a CPU)"
    )
    learning_rate: float | None = Field(
        None, gt=0, description=f"peak learning rate (ours); null is {RATE:g} for a full fit, {RATE_LORA:g} with lora"
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="learning rate over the steps (linear as in LIMA)"
    )
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="share of the steps that warm up (none, as in LIMA)")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay (ours; LIMA takes 0.1)")
    lora: Lora | None = Field(None, description="fit an adapter instead of the whole model")
    checkpoint_steps: int = Field(
        50, ge=1, description="steps between checkpoints; a killed fit goes on from the last (ours)"
    )
    gradient_checkpointing: bool = Field(
        False,
        description="recompute activations in the backward pass: less memory, about a third more time (ours: off)",
    )


def inputs(settings: Settings) -> Inputs:
    """The dataset."""
    return Inputs(datasets=(settings.data,))


def order(rows: int, epochs: float, seed: int) -> list[int]:
    """Row indices in training order: each epoch a shuffle of its own, by hash, so that neither a library's version nor
    the rows' content can change it."""
    total, found = max(1, round(rows * epochs)), list[int]()
    for epoch in range(math.ceil(total / rows)):
        found += sorted(range(rows), key=lambda row: hashlib.sha256(f"{seed}/{epoch}/{row}".encode()).digest())
    return found[:total]


def render(job: Fit, row: dict[str, Any]) -> list[Message]:
    """The dialogue that a row is trained as: the context's `target`, or the messages of its final request."""
    module, settings = job.context
    if hasattr(module, "target"):
        found: list[Message] = module.target(row, settings)
        return found
    request = next(module.turns(row["messages"], settings))
    if not request.final or request.prefill:
        raise ImprintError(
            f"arm '{job.arm}': context '{module.__name__.rsplit('.', 1)[-1]}' makes more than one plain request, and "
            "has no `target` that says how a row is trained under it; write another context under `fit`"
        )
    return list(request.messages)


def examples(job: Fit, tokenizer: Any, data: str) -> list[Example]:
    """Every row of a dataset as tokens and labels, in the dataset's order."""
    rows = job.datasets[data]
    if not rows:
        raise ImprintError(f"arm '{job.arm}': dataset '{data}' has no rows to train on")
    made = []
    for row in rows:
        where = f"dataset '{data}', example {row['example_id']}"
        made.append(encode(tokenizer, render(job, row), job.settings.max_length, where))
    if not any(label != IGNORED for example in made for label in example.labels):
        raise ImprintError(
            f"arm '{job.arm}': the prompt alone fills max_length: {job.settings.max_length} tokens in every row of "
            f"'{data}'; write at least {max(example.full for example in made)}"
        )
    return made


def arguments(job: Fit, steps: int) -> Any:
    """TRL's settings. What the result depends on is named here, since defaults differ between TRL and transformers and
    move between releases (TRL switches on bf16 and gradient checkpointing)."""
    from trl.trainer.sft_config import SFTConfig

    s = job.settings
    return SFTConfig(
        output_dir=str(job.folder),
        use_cpu=job.device == "cpu",
        bf16=job.dtype == "bfloat16",
        fp16=False,
        seed=job.seed,
        data_seed=job.seed,
        # One CPU thread is deterministic by itself, and this would fill every new tensor with NaN, at a cost.
        full_determinism=job.device != "cpu",
        train_sampling_strategy="sequential",  # the dataset is in `order` already
        num_train_epochs=1,
        max_steps=steps,
        per_device_train_batch_size=s.batch_size,
        gradient_accumulation_steps=1,
        activation_checkpointing=s.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=s.learning_rate or (RATE_LORA if s.lora else RATE),
        lr_scheduler_type=s.schedule if s.warmup_ratio == 0 or s.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(s.warmup_ratio * steps),
        weight_decay=s.weight_decay,
        optim="adamw_torch_fused",  # plain AdamW in one pass over the weights
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        max_grad_norm=1.0,
        max_length=None,  # rows are cut and counted before
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,  # the bar is ours, with the arm's name
        save_strategy="no",  # `_Watch` says when
        save_only_model=False,
        dataloader_pin_memory=False,
        dataloader_num_workers=0,
        dataloader_drop_last=False,
    )


def trainer(job: Fit, model: Any, tokenizer: Any, rows: list[Example]) -> tuple[Any, Any]:
    """The trainer of `rows`, which are in training order, and its callback."""
    import datasets
    from peft import LoraConfig
    from transformers.trainer_callback import PrinterCallback

    from imprint.sft_trainer import Trainer, Watch, collate

    adapter = job.settings.lora
    config = None
    if adapter is not None:
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            target_modules=adapter.targets,
            bias="none",
        )
    watch = Watch(job)
    model.name_or_path = ""  # else an adapter names the folder its model came from
    try:
        made = Trainer(
            model=model,
            args=arguments(job, math.ceil(len(rows) / job.settings.batch_size)),
            data_collator=collate,
            train_dataset=datasets.Dataset.from_dict(
                {"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]}
            ),
            processing_class=tokenizer,
            callbacks=[watch],
            peft_config=config,
        )
    except ValueError as error:
        if adapter is not None and "target module" in str(error).lower():
            raise ImprintError(
                f"arm '{job.arm}': lora.targets: {adapter.targets} is not in this model: {error}"
            ) from error
        raise
    made.remove_callback(PrinterCallback)
    return made, watch


def save(model: Any, folder: Path, lora: bool) -> None:
    """The weights of a fit: the adapter alone, or all of them in fp32."""
    shutil.rmtree(folder, ignore_errors=True)  # of a fit of the other kind
    if not lora:
        models.save_full(model, folder)
        return
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for config in model.peft_config.values():
            config.base_model_name_or_path = None
        model.save_pretrained(name, save_embedding_layers=False)
        for file in (models.ADAPTER, "adapter_config.json"):
            (Path(name) / file).chmod(0o644)
            (Path(name) / file).replace(folder / file)


def fit(job: Fit) -> dict[str, Any]:
    """Train, going on from the last whole checkpoint in `job.folder`, and write weights and curves under `job.out`."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(job.threads)
    if job.dtype not in ("bfloat16", "float32"):
        raise ImprintError(f"arm '{job.arm}': sft trains in bfloat16 (autocast) or float32, found dtype {job.dtype!r}")
    model, tokenizer = models.load(job.manifests, "float32", job.device)
    made = examples(job, tokenizer, job.settings.data)
    rows = [made[i] for i in order(len(made), job.settings.epochs, job.seed)]
    resume = checkpoints.last(job.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what the pinned libraries say of each other
        run, watch = trainer(job, model, tokenizer, rows)
        try:
            run.train(resume_from_checkpoint=None if resume is None else str(resume))
        finally:
            watch.close()
    save(run.accelerator.unwrap_model(run.model), job.out / "weights", job.settings.lora is not None)
    size = job.settings.batch_size
    tokens = [sum(len(row.input_ids) for row in rows[i : i + size]) for i in range(0, len(rows), size)]
    curves = [
        {"arm": job.arm, "seed": job.seed, "step": entry["step"], "quantity": quantity, "value": float(value)}
        for entry in run.state.log_history
        if "loss" in entry
        for quantity, value in (
            *((name, entry[name]) for name in ("loss", "learning_rate", "grad_norm")),
            ("tokens", tokens[entry["step"] - 1]),
        )
    ]
    tables.write(job.out / "curves.parquet", "curves", curves)
    losses = [row["value"] for row in curves if row["quantity"] == "loss"]
    metrics = {
        "steps": len(losses),
        "rows": len(made),
        "tokens": sum(tokens),
        "assistant_tokens": sum(label != IGNORED for row in rows for label in row.labels),
        "truncated_rows": sum(row.full > job.settings.max_length for row in made),
        "unlabelled_rows": sum(all(label == IGNORED for label in row.labels) for row in made),
        "first_loss": losses[0],
        "final_loss": losses[-1],
    }
    return {"kind": "lora" if job.settings.lora else "full", "metrics": metrics}
