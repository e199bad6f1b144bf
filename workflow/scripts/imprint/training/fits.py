"""What fits of every method share: the order of rows, the trainer's arguments, adapters, curves, and the weights.

Nothing here imports torch at module level: the methods' settings, which the Snakefile reads, use it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field

from imprint.methods import Fit
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.training import checkpoints


class Lora(Strict):
    """A low-rank adapter (arXiv 2106.09685) instead of new weights."""

    rank: int = Field(16, ge=1, description="rank of the adapter's matrices (ours)")
    alpha: int = Field(32, ge=1, description="the adapter's output is scaled by alpha / rank (ours: twice the rank)")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapter (ours: none, since fits are short)")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="layers that get one: every linear layer but the output layer, or their names (ours)"
    )


def begin(job: Fit) -> None:
    """Threads, quiet libraries, and the number formats that fits can train in."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(job.threads)
    if job.dtype not in ("bfloat16", "float32"):
        raise ImprintError(f"arm '{job.arm}': fits train in bfloat16 (autocast) or float32, found dtype {job.dtype!r}")


def arguments(job: Fit, steps: int, learning_rate: float) -> dict[str, Any]:
    """What every trainer is told. What the result depends on is named here, since defaults differ between TRL and
    transformers and move between releases (TRL switches on bf16 and gradient checkpointing). `job.settings` has
    schedule, warmup_ratio, weight_decay and gradient_checkpointing."""
    s = job.settings
    return {
        "output_dir": str(job.folder),
        "use_cpu": job.device == "cpu",
        "bf16": job.dtype == "bfloat16",
        "fp16": False,
        "seed": job.seed,
        "data_seed": job.seed,
        # One CPU thread is deterministic by itself, and this would fill every new tensor with NaN, at a cost.
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
        "save_strategy": "no",  # `fit_watch.Watch` says when
        "save_only_model": False,
        "dataloader_pin_memory": False,
        "dataloader_num_workers": 0,
        "dataloader_drop_last": False,
    }


def lora_config(adapter: Lora | None) -> Any:
    """PEFT's settings, or None for a full fit."""
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
    """Name the setting when PEFT does not find the layers that it is given."""
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
    """Without what the pinned libraries say of each other's next releases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def train(job: Fit, run: Any, watch: Any) -> None:
    """Train, going on from the last whole checkpoint in `job.folder`, and write the weights under `job.out`."""
    from transformers.trainer_callback import PrinterCallback

    run.remove_callback(PrinterCallback)
    resume = checkpoints.last(job.folder)
    try:
        run.train(resume_from_checkpoint=None if resume is None else str(resume))
    finally:
        watch.close()
    kind = "lora" if job.settings.lora else "full"
    plugins.load("artifacts", kind).save(run.accelerator.unwrap_model(run.model), job.out)


def curve(job: Fit, quantity: str, values: Iterable[float]) -> list[dict[str, Any]]:
    """Rows of the curves table: one value a step, from step 1."""
    fixed = {"arm": job.arm, "seed": job.seed, "quantity": quantity}
    return [{**fixed, "step": step, "value": float(value)} for step, value in enumerate(values, 1)]


def curves(job: Fit, history: list[dict[str, Any]], names: dict[str, str]) -> list[dict[str, Any]]:
    """Rows of the curves table from a trainer's log; `names` says which of its entries are kept, and as what."""
    return [
        {"arm": job.arm, "seed": job.seed, "step": entry["step"], "quantity": name, "value": float(entry[logged])}
        for entry in history
        if "loss" in entry
        for logged, name in names.items()
        if entry.get(logged) is not None
    ]
