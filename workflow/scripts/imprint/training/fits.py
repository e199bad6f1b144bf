"""What gradient fits share: settings, the trainer's arguments, adapters, and training from a checkpoint.

The Snakefile reads the methods' settings, which import this module. So torch is imported inside functions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field, model_validator

from imprint.draws import seed_of
from imprint.methods import Fit
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.model_sizes import Adapter
from imprint.runtime.plugins import Strict
from imprint.training import checkpoints

SAMPLED = 256
"""The sequences that a fit on a GPU decodes together."""


class Lora(Strict):
    """A low-rank adapter (arXiv 2106.09685) instead of new weights."""

    rank: int = Field(16, ge=1, description="rank of the adapter's matrices (ours)")
    alpha: int = Field(32, ge=1, description="the adapter's output is scaled by alpha / rank (ours: twice the rank)")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapter (ours: none, since fits are short)")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="layers that get one: every linear layer but the output layer, or their names (ours)"
    )


class Training(Strict):
    """The settings of every gradient fit. A method adds `learning_rate`, whose default is its own."""

    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="learning rate over the updates (linear as in LIMA, arXiv 2305.11206)"
    )
    warmup_ratio: float = Field(
        0.0, ge=0, lt=1, description="share of the updates that warm up (none, as in LIMA; DPO's paper takes 150)"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay (TRL's default; LIMA takes 0.1)")
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="rows, pairs or completions in one backward pass of a GPU, against a lack of memory; null is all "
        "of an update, and the update is the same but for rounding and the masks of dropout",
    )
    lora: Lora | None = Field(None, description="fit an adapter instead of the whole model")
    checkpoint_steps: int = Field(
        50, ge=1, description="steps between checkpoints; a killed fit goes on from the last (ours)"
    )
    gradient_checkpointing: bool = Field(
        False,
        description="recompute activations in the backward pass: less memory, about a third more time, and far more "
        "with grpo (ours: off)",
    )

    def rows_of_pass(self, rows: int) -> int:
        """The rows of one backward pass, where a rank has this many rows of an update."""
        return math.gcd(self.micro_batch_size or rows, rows)

    @property
    def adapter(self) -> Adapter | None:
        """What the reckoning of memory must know of `lora`."""
        return Adapter(self.lora.rank, self.lora.targets) if self.lora else None


class RowTraining(Training):
    """The settings of a gradient fit that passes over the rows of a dataset."""

    batch_size: int = Field(
        8, ge=1, description="rows or pairs a step (ours, small for a CPU; LIMA takes 32, DPO's paper 64)"
    )
    max_length: int = Field(
        192,
        ge=8,
        description="tokens of a row, or of a prompt with an answer; longer ones are cut at the end and counted (ours, "
        "small for a CPU)",
    )

    @model_validator(mode="after")
    def _in_whole_parts(self) -> RowTraining:
        if self.batch_size % (self.micro_batch_size or 1):
            raise ValueError(f"micro_batch_size: {self.micro_batch_size} does not divide batch_size: {self.batch_size}")
        return self


def begin(job: Fit) -> None:
    """Set the threads and silence the libraries. Raises ImprintError for a dtype that fits cannot train in."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(job.threads)
    if job.dtype not in ("bfloat16", "float32"):
        raise ImprintError(f"arm '{job.arm}': fits train in bfloat16 (autocast) or float32, found dtype {job.dtype!r}")


def arguments(job: Fit, steps: int, learning_rate: float) -> dict[str, Any]:
    """The arguments of every trainer, for `steps` optimizer steps. All arguments that results depend on are set, since
    defaults differ between TRL and transformers and change between releases (TRL switches on bf16 and gradient
    checkpointing). `job.settings` are a `Training`."""
    s = job.settings
    return {
        "output_dir": str(job.folder),
        "use_cpu": job.device == "cpu",
        "ddp_backend": "gloo" if job.ranks.size > 1 and job.device == "cpu" else None,
        "bf16": job.dtype == "bfloat16",
        "fp16": False,
        "seed": job.seed,
        "data_seed": job.seed,
        # One CPU thread is deterministic without this option, which costs time: it fills every new tensor with NaN.
        "full_determinism": job.device != "cpu",
        "num_train_epochs": 1,
        "max_steps": steps,
        "activation_checkpointing": s.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "learning_rate": learning_rate,
        "lr_scheduler_type": s.schedule if s.warmup_ratio == 0 or s.schedule != "constant" else "constant_with_warmup",
        "warmup_steps": round(s.warmup_ratio * steps),
        "weight_decay": s.weight_decay,
        "optim": "adamw_torch_fused",  # plain AdamW in one pass over the weights
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,  # the bar is ours, with the arm's name
        "save_strategy": "no",  # `fit_watch.Watch` orders checkpoints
        "save_only_model": False,
        "dataloader_pin_memory": False,
        "dataloader_num_workers": 0,
        "dataloader_drop_last": False,
    }


def lora_config(adapter: Lora | None) -> Any:
    """PEFT's settings for the adapter, or None for a fit of all weights."""
    from peft import LoraConfig

    if adapter is None:
        return None
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.targets,
        bias="none",
    )


@contextmanager
def adapter_errors(job: Fit) -> Iterator[None]:
    """Turn PEFT's error for layers that the model lacks into an ImprintError that names the setting."""
    adapter = job.settings.lora
    try:
        yield
    except ValueError as error:
        if adapter is not None and "target module" in str(error).lower():
            raise ImprintError(
                f"arm '{job.arm}': lora.targets: {adapter.targets} is not in this model: {error}"
            ) from error
        raise


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings of the pinned libraries about each other's next releases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def train(job: Fit, run: Any, watch: Any) -> None:
    """Train from the last complete checkpoint in `job.folder`, and write the weights under `job.out`. `run` is the
    trainer and `watch` its `fit_watch.Watch`."""
    import torch
    from transformers.trainer_callback import PrinterCallback

    run.remove_callback(PrinterCallback)
    resume = job.ranks.first(lambda: checkpoints.last(job.folder))
    if job.ranks.place > 0:  # else the masks of dropout would be the same in all ranks
        torch.manual_seed(seed_of(job.seed, job.ranks.place))
    try:
        run.train(resume_from_checkpoint=None if resume is None else str(resume))
    finally:
        watch.close()
    kind = "lora" if job.settings.lora else "full"
    plugins.load("artifacts", kind).save(run.accelerator.unwrap_model(run.model), job.out)
