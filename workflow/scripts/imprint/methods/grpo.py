"""Reinforcement fine-tuning by GRPO (arXiv 2402.03300), through TRL's GRPOTrainer: completions of a prompt compete with
each other, and scores serve as rewards. Every prompt of the training is put to the model under the fit's contexts, so
`context: {prior_prompt: plan}` trains a prior prompt into the weights.

fit: {method: grpo, data: constraints, reward: [ifeval, {format: plan}], context: {prior_prompt: plan}}

Every step is one rollout: it draws `group_size` completions for each of `prompts_per_step` prompts, and makes
`updates_per_rollout` updates with them. Each completion takes part in one update. The probability ratio of a token is
always taken against the weights that drew the completions, and is clipped (PPO, arXiv 1707.06347). Curves and
checkpoints count steps, and so does `rollouts.parquet` beside the weights, which keeps the completions, one a row.
Several GPUs share the completions of a rollout; in fp32 they draw and learn what one does.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from imprint.draws import order
from imprint.methods import Fit, _prompts
from imprint.models import chains
from imprint.runtime import parquet, plugins
from imprint.runtime.gpu_memory import Holds
from imprint.runtime.plugins import Inputs
from imprint.training import fits
from imprint.training.rewards import Reward, Term
from imprint.training.sharing import Shared

RATE, RATE_LORA = 2e-6, 2e-5


class Settings(fits.Training):
    data: str = Field(description="dataset of prompts with references that the rewards can judge")
    reward: list[Term] = Field(
        min_length=1,
        description="scores whose mean is the reward: NAME, NAME.METRIC (not the primary metric), or either with "
        "settings, as in [math, {format: plan}]",
    )
    steps: int = Field(100, ge=1, description="rollouts (ours; the paper of prior prompts reports about 150)")
    prompts_per_step: int = Field(4, ge=1, description="prompts a step (ours, small for a CPU)")
    group_size: int = Field(8, ge=2, description="completions of a prompt that compete with each other (TRL's default)")
    completion_tokens: int = Field(96, ge=1, description="tokens a completion may have (ours, small for a CPU)")
    updates_per_rollout: int = Field(
        1,
        ge=1,
        description="updates that share the completions of a step, each with its own part of them, dealt at random; "
        "from the second on, the weights are no longer those that drew the completions (arXiv 2402.03300: 1)",
    )
    loss: Literal["dapo", "grpo", "bnpo", "dr_grpo"] = Field(
        "dapo",
        description="how the tokens' losses l are averaged over an update with N completions of lengths T_i. dapo "
        "(arXiv 2503.14476): sum l / sum T_i; where a rollout has several updates, sum T_i is their mean. grpo (arXiv "
        "2402.03300): mean over i of (sum l_i / T_i), so a token of a long completion weighs less. bnpo (TRL's name): "
        "dapo within each backward pass, then the mean over passes, so micro_batch_size counts, and several GPUs "
        "share whole passes. dr_grpo (arXiv "
        "2503.20783): sum l / (N x completion_tokens); that paper also leaves the standard deviation out of the "
        "advantages, which stays here",
    )
    sampler: str = Field(
        "transformers",
        description="engine that draws the completions: transformers, in the fit's process, or vllm, in a process of "
        "its own that takes over the weights through a file before each rollout (one GPU; for long completions)",
    )
    temperature: float = Field(1.0, gt=0, le=10, description="of the completions, and of the policy that is trained")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of the completions")
    beta: float = Field(0.0, ge=0, description="weight of the KL term against the weights the fit starts from (TRL: 0)")
    epsilon: float = Field(0.2, gt=0, lt=1, description="clip of the probability ratio (arXiv 1707.06347)")
    learning_rate: float | None = Field(
        None, gt=0, description=f"learning rate; null is {RATE:g} for a full fit, {RATE_LORA:g} with lora (ours)"
    )
    schedule: Literal["linear", "cosine", "constant"] = Field("constant", description="learning rate over the updates")
    checkpoint_steps: int = Field(20, ge=1, description="as of every fit; a step takes longer here (ours)")

    @field_validator("reward", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """`{math: {}, format: plan}` is the same as `[math, {format: plan}]`."""
        if isinstance(value, dict):
            return [{name: settings} for name, settings in value.items()]
        return [value] if isinstance(value, str) else value

    @field_validator("sampler")
    @classmethod
    def _samples(cls, value: str) -> str:
        engines = plugins.names("engines")
        if value in engines and "sample" in plugins.load("engines", value).CAN:
            return value
        able = ", ".join(name for name in engines if "sample" in plugins.load("engines", name).CAN)
        raise ValueError(f"found {value!r}, which is no engine that draws for a fit; write one of: {able}")

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        names = [term.name for term in self.reward]
        if len(set(names)) != len(names):
            raise ValueError(f"reward: found {names}; each term may stand once")
        if self.completions % self.updates_per_rollout:
            raise ValueError(
                f"updates_per_rollout: {self.updates_per_rollout} does not divide the {self.completions} completions a "
                "step"
            )
        if self.micro_batch_size is not None and self.update % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size: {self.micro_batch_size} does not divide the {self.update} completions an update"
            )
        return self

    @property
    def completions(self) -> int:
        """Completions of a step."""
        return self.prompts_per_step * self.group_size

    @property
    def update(self) -> int:
        """Completions of an update."""
        return self.completions // self.updates_per_rollout


def inputs(settings: Settings) -> Inputs:
    """The dataset, the scores that serve as rewards, and the engine that draws."""
    scores = tuple(("scores", term.score) for term in settings.reward)
    return Inputs(datasets=(settings.data,), plugins=(*scores, ("engines", settings.sampler)))


def makes(settings: Settings) -> str:
    """An adapter, or all weights."""
    return "lora" if settings.lora else "full"


def shared(settings: Settings) -> Shared | None:
    """The completions of an update. With `loss: bnpo` its backward passes, since the loss is a mean within each. An
    engine in a process of its own draws for one GPU only."""
    if settings.sampler != "transformers":
        return None
    settings_of_update = "prompts_per_step, group_size and updates_per_rollout"
    if settings.loss == "bnpo":
        passes = settings.update // settings.rows_of_pass(settings.update)
        return Shared(passes, "backward passes (loss: bnpo)", f"micro_batch_size, {settings_of_update}")
    return Shared(settings.update, "completions", settings_of_update)


def holds(settings: Settings, ranks: int) -> Holds:
    """The copy that draws, with the completions that it draws together, and the reference of a full fit's KL term.
    Completions share the reading of their prompt. With gradient checkpointing, and in several ranks, TRL's own pass
    runs: each completion has its own, and logits are computed in tiles."""
    rows = settings.rows_of_pass(settings.update // ranks)
    plain = settings.gradient_checkpointing or ranks > 1
    return Holds(
        trained="adapter" if settings.lora else "weights",
        adapter=settings.adapter,
        rows=rows,
        tokens=settings.completion_tokens,
        prompts=rows if plain else min(rows, settings.prompts_per_step),
        recomputes=settings.gradient_checkpointing,
        tiled=plain,
        reference=settings.beta > 0 and settings.lora is None,
        sampled=min(fits.SAMPLED, settings.completions // ranks),
        apart=settings.sampler != "transformers",
    )


def arguments(job: Fit, rewards: int) -> Any:
    """TRL's settings, all of them named, since their defaults change between releases."""
    from trl.trainer.grpo_config import GRPOConfig

    s = job.settings
    of_rank = s.update // job.ranks.size
    size = s.rows_of_pass(of_rank)
    rate = s.learning_rate or (RATE_LORA if s.lora else RATE)
    shared = fits.arguments(job, s.steps * s.updates_per_rollout, rate)
    return GRPOConfig(
        **shared | {"logging_steps": s.updates_per_rollout},
        # TRL 1.16 reads this older name of activation_checkpointing.
        gradient_checkpointing=s.gradient_checkpointing,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=of_rank // size,
        steps_per_generation=s.updates_per_rollout * of_rank // size,
        num_generations=s.group_size,
        num_iterations=1,
        max_completion_length=s.completion_tokens,
        temperature=s.temperature,
        top_p=s.top_p,
        top_k=0,
        min_p=None,
        repetition_penalty=1.0,
        beta=0.0,  # `grpo_trainer.Trainer` sets it, with its own reference model
        epsilon=s.epsilon,
        epsilon_high=None,
        delta=None,
        loss_type=s.loss,
        scale_rewards="group",
        importance_sampling_level="token",
        multi_objective_aggregation="sum_then_normalize",
        reward_weights=[1.0 / rewards] * rewards,
        mask_truncated_completions=False,
        disable_dropout=False,
        shuffle_dataset=False,  # the dataset is in `draws.order` already
        pad_to_multiple_of=None,
        use_vllm=False,
        use_transformers_continuous_batching=False,
        log_completions=False,
        top_entropy_quantile=1.0,
        entropy_coef=0.0,
    )


def fit(job: Fit) -> dict[str, Any]:
    """Train, going on from the last whole checkpoint in `job.folder`, and write weights, curves and completions under
    `job.out`. Returns the metrics for the manifest."""
    import datasets

    from imprint.training.fit_watch import Watch
    from imprint.training.grpo_trainer import Sampler, ShardedTrainer, Trainer, shard

    fits.begin(job)
    _prompts.check_form(job)
    s = job.settings
    model, tokenizer = chains.load(job.manifests, "float32", job.device, job.ranks.size)
    model.name_or_path = ""  # otherwise an adapter names the folder that its model was read from
    sampler = Sampler(job)
    rewards = [Reward(term, job.contexts) for term in s.reward]
    rows, stop, left_out = _prompts.prompts(job, sampler.policy, rewards)
    needed = s.steps * s.prompts_per_step
    places = order(len(rows), needed / len(rows), job.seed)
    names = {name: name for name in ("loss", "learning_rate", "grad_norm", "reward", "reward_std", "kl", "entropy")}
    names |= {f"rewards/{reward.__name__}/mean": f"reward/{reward.__name__}" for reward in rewards}
    names |= {
        "completions/mean_length": "length",
        "completions/clipped_ratio": "truncated_share",
        "frac_reward_zero_std": "zero_variance_share",
        "unjudged": "unjudged_share",
        "clip_ratio/region_mean": "clipped_share",
    }
    with fits.quiet(), fits.adapter_errors(job):
        watch = Watch(job, names, s.updates_per_rollout)
        run = (ShardedTrainer if job.ranks.size > 1 else Trainer)(
            job,
            sampler,
            stop,
            model=model,
            args=arguments(job, len(rewards)),
            reward_funcs=rewards,
            train_dataset=datasets.Dataset.from_list([rows[i] for i in places]),
            processing_class=tokenizer,
            callbacks=[watch],
            peft_config=fits.lora_config(s.lora),
        )
        fits.train(job, run, watch)
    parquet.write(
        job.out / "rollouts.parquet",
        "rollouts",
        parquet.concat([shard(job.folder, step) for step in range(1, s.steps + 1)], "rollouts"),
    )
    curves = watch.curves
    curves.write()
    metrics = {
        "steps": s.steps,
        "updates": s.steps * s.updates_per_rollout,
        "rows": len(rows),
        "unscorable_rows": left_out,
        "completions": s.steps * s.completions,
        "first_reward": curves.of("reward")[0],
        "final_reward": curves.of("reward")[-1],
        "zero_variance_share": sum(curves.of("zero_variance_share")) / s.steps,
        "unjudged_share": sum(curves.of("unjudged_share")) / s.steps,
    }
    return metrics
