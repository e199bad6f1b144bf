"""Direct preference optimisation (Rafailov et al., arXiv 2305.18290), through TRL's DPOTrainer and PEFT: of two answers
to a prompt, the model learns to prefer the chosen one. The loss of a pair, in nats, is

    -log sigmoid(beta * (log p(chosen) / q(chosen) - log p(rejected) / q(rejected)))

p is the model in training, q the reference: the weights that the fit starts from. beta * log p/q is an answer's reward.

fit: {method: dpo, data: preferences, epochs: 1, lora: {rank: 16}}

A row's messages end with the chosen assistant turn, and its `fields` hold `rejected`, the text of the rejected one. The
fit's contexts apply to both. As with `sft`, the order depends on the seed and the rows' positions alone. A pair that
`max_length` cuts keeps its place and is counted; a pair of two equal answers is left out and counted.

A full fit keeps the reference as a second copy of the weights, 4 bytes a parameter beside the 16 of training. With
`lora` the reference is the model without its adapter, and costs no memory.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from imprint.draws import order
from imprint.methods import Fit
from imprint.models import chains
from imprint.runtime.gpu_memory import Holds
from imprint.runtime.plugins import Inputs
from imprint.training import fits
from imprint.training.pairs import Pair, pairs

RATE, RATE_LORA = 1e-6, 1e-5


class Settings(fits.RowTraining):
    data: str = Field(description="dataset of dialogues whose `fields` hold a `rejected` answer")
    beta: float = Field(
        0.1,
        gt=0,
        description="how closely the model keeps to the reference: the smaller, the looser (arXiv 2305.18290)",
    )
    epochs: float = Field(1.0, gt=0, description="passes over the pairs; a part of one takes its first pairs (ours)")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description=f"peak learning rate; null is {RATE:g} for a full fit (arXiv 2305.18290, TRL), {RATE_LORA:g} with "
        "lora (ours)",
    )


def inputs(settings: Settings) -> Inputs:
    """The dataset."""
    return Inputs(datasets=(settings.data,))


def makes(settings: Settings) -> str:
    """An adapter, or all weights."""
    return "lora" if settings.lora else "full"


def holds(settings: Settings, ranks: int) -> Holds:
    """Two answers a pair, and the reference of a full fit. TRL computes the logits in tiles."""
    return Holds(
        trained="adapter" if settings.lora else "weights",
        adapter=settings.adapter,
        rows=2 * (settings.micro_batch_size or settings.batch_size),
        tokens=settings.max_length,
        recomputes=settings.gradient_checkpointing,
        tiled=True,
        reference=settings.lora is None,
    )


def arguments(job: Fit, steps: int) -> Any:
    """TRL's settings, all of them named, since their defaults change between releases."""
    from trl.trainer.dpo_config import DPOConfig

    s = job.settings
    size = s.micro_batch_size or s.batch_size
    return DPOConfig(
        **fits.arguments(job, steps, s.learning_rate or (RATE_LORA if s.lora else RATE)),
        # TRL 1.16 reads this older name of activation_checkpointing.
        gradient_checkpointing=s.gradient_checkpointing,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=s.batch_size // size,
        train_sampling_strategy="sequential",  # the pairs are in `draws.order` already
        beta=s.beta,
        loss_type=["sigmoid"],
        loss_weights=None,
        label_smoothing=0.0,
        f_divergence_type="reverse_kl",
        use_weighting=False,
        ld_alpha=None,
        sync_ref_model=False,
        precompute_ref_log_probs=False,
        disable_dropout=False,  # else `lora: {dropout: ...}` has no effect
        max_length=None,  # pairs are cut and counted before
        pad_to_multiple_of=None,
    )


def fit(job: Fit) -> dict[str, Any]:
    """Train, going on from the last whole checkpoint in `job.folder`, and write weights and curves under `job.out`.
    Returns the metrics for the manifest."""
    fits.begin(job)
    s = job.settings
    model, tokenizer = chains.load(job.manifests, "float32", job.device)
    model.name_or_path = ""  # otherwise an adapter names the folder that its model was read from
    whole, equal = pairs(job, tokenizer, s.data)
    ordered = [whole[i].cut(s.max_length) for i in order(len(whole), s.epochs, job.seed)]
    with fits.quiet():
        run, watch = trainer(job, model, tokenizer, ordered)
        fits.train(job, run, watch)
    watch.curves.write()
    losses = watch.curves.of("loss")
    cut = [pair.cut(s.max_length) for pair in whole]
    metrics = {
        "steps": len(losses),
        "rows": len(whole),
        "equal_rows": equal,
        "truncated_rows": sum(pair.length > s.max_length for pair in whole),
        "unlabelled_rows": sum(pair.chosen == pair.rejected for pair in cut),
        "tokens": sum(2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in ordered),
        "first_loss": losses[0],
        "final_loss": losses[-1],
        "final_reward_margin": watch.curves.of("reward_margin")[-1],
        "final_reward_accuracy": watch.curves.of("reward_accuracy")[-1],
    }
    return metrics


def trainer(job: Fit, model: Any, tokenizer: Any, ordered: list[Pair]) -> tuple[Any, Any]:
    """The trainer and its callback. The pairs are in training order and cut."""
    import datasets

    from imprint.training.dpo_trainer import Trainer
    from imprint.training.fit_watch import Watch

    names = {
        **{name: name for name in ("loss", "learning_rate", "grad_norm")},
        "rewards/margins": "reward_margin",
        "rewards/accuracies": "reward_accuracy",
        "rewards/chosen": "reward_chosen",
        "rewards/rejected": "reward_rejected",
    }
    watch = Watch(job, names)
    columns = {
        "prompt_ids": [pair.prompt for pair in ordered],
        "chosen_ids": [pair.chosen for pair in ordered],
        "rejected_ids": [pair.rejected for pair in ordered],
    }
    with fits.adapter_errors(job):
        run = Trainer(
            job,
            model,
            args=arguments(job, math.ceil(len(ordered) / job.settings.batch_size)),
            train_dataset=datasets.Dataset.from_dict(columns),
            processing_class=tokenizer,
            callbacks=[watch],
            peft_config=fits.lora_config(job.settings.lora),
        )
    return run, watch
