"""Reinforcement fine-tuning by GRPO (arXiv 2402.03300), through TRL's GRPOTrainer: completions of a prompt compete with
each other, and scores serve as rewards. Every prompt of the training is put to the model under the fit's contexts, so
`context: {prior_prompt: plan}` trains a prior prompt into the weights.

fit: {method: grpo, data: constraints, reward: [ifeval, {format: plan}], context: {prior_prompt: plan}}

Every step draws `group_size` completions for each of `prompts_per_step` prompts and makes one update with them. The
file `rollouts.parquet` beside the weights keeps the completions, one a row.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from imprint.draws import order
from imprint.methods import Fit
from imprint.models import chains
from imprint.policies import answers
from imprint.policies.dialogue import Request, single
from imprint.policies.policy import Draw, Policy
from imprint.runtime import parquet, plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import canonical
from imprint.runtime.plugins import Inputs, Strict
from imprint.training import fits
from imprint.training.fits import Lora
from imprint.training.rewards import Reward, Term

RATE, RATE_LORA = 2e-6, 2e-5


class Settings(Strict):
    data: str = Field(description="dataset of prompts with references that the rewards can judge")
    reward: list[Term] = Field(
        min_length=1,
        description="scores whose mean is the reward: NAME, NAME.METRIC (not the primary metric), or either with "
        "settings, as in [math, {format: plan}]",
    )
    steps: int = Field(100, ge=1, description="updates (ours; the paper reports about 150)")
    prompts_per_step: int = Field(4, ge=1, description="prompts a step (ours, small for a CPU)")
    group_size: int = Field(8, ge=2, description="completions of a prompt that compete with each other (TRL's default)")
    completion_tokens: int = Field(96, ge=1, description="tokens a completion may have (ours, small for a CPU)")
    temperature: float = Field(1.0, gt=0, le=10, description="of the completions, and of the policy that is trained")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of the completions")
    beta: float = Field(0.0, ge=0, description="weight of the KL term against the weights the fit starts from (TRL: 0)")
    epsilon: float = Field(0.2, gt=0, lt=1, description="clip of the probability ratio (arXiv 1707.06347)")
    learning_rate: float | None = Field(
        None, gt=0, description=f"learning rate; null is {RATE:g} for a full fit, {RATE_LORA:g} with lora (ours)"
    )
    schedule: Literal["linear", "cosine", "constant"] = Field("constant", description="learning rate over the steps")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="share of the steps that warm up")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    micro_batch_size: int | None = Field(
        None, ge=1, description="completions in one backward pass, against a lack of memory; null is all of a step"
    )
    lora: Lora | None = Field(None, description="fit an adapter instead of the whole model")
    checkpoint_steps: int = Field(
        20, ge=1, description="steps between checkpoints; a killed fit goes on from the last (ours)"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, far more time (ours: off)"
    )

    @field_validator("reward", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """`{math: {}, format: plan}` is the same as `[math, {format: plan}]`."""
        if isinstance(value, dict):
            return [{name: settings} for name, settings in value.items()]
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        names = [term.name for term in self.reward]
        if len(set(names)) != len(names):
            raise ValueError(f"reward: found {names}; each term may stand once")
        drawn = self.prompts_per_step * self.group_size
        if self.micro_batch_size is not None and drawn % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size: {self.micro_batch_size} does not divide the {drawn} completions a step"
            )
        return self


def inputs(settings: Settings) -> Inputs:
    """The dataset, and the scores that serve as rewards."""
    return Inputs(datasets=(settings.data,), plugins=tuple(("scores", term.score) for term in settings.reward))


def makes(settings: Settings) -> str:
    """An adapter, or all weights."""
    return "lora" if settings.lora else "full"


def ask(job: Fit, row: dict[str, Any]) -> Request:
    """The one request that the contexts make of a row, without the assistant turns at the row's end. Raises
    ImprintError if they make none or several."""
    messages = row["messages"]
    while messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    try:
        return single(job.contexts, row, Request(messages), job.inputs)
    except ImprintError as error:
        raise ImprintError(f"arm '{job.arm}': {error}") from error


def _check_form(job: Fit) -> None:
    """Raise ImprintError for a reward for a form that the contexts do not ask for: no completion would have it."""
    form = answers.form(job.contexts)
    for term in job.settings.reward:
        wanted = plugins.load("scores", term.score).form(term.settings)
        if wanted is not None and wanted != form:
            raise ImprintError(
                f"arm '{job.arm}': the reward {term.score} asks for <{wanted}>, but the context asks for "
                f"{f'<{form}>' if form else 'no tags'}; write {{{term.score}: TAG}} with the style of the context"
            )


def prompts(job: Fit, policy: Policy, rewards: list[Reward]) -> tuple[list[dict[str, Any]], tuple[str, ...], int]:
    """The rows as the trainer takes them, the texts that end a completion, and the number of rows left out because a
    reward cannot judge their reference. Raises ImprintError for a prompt that does not fit into the model's positions,
    and if no row is left."""
    s, engine = job.settings, policy.engine
    rows, left_out, stop = [], 0, set()
    for row in job.inputs.datasets[s.data]:
        if any(reward.value(row, "") is None for reward in rewards):
            left_out += 1
            continue
        request = ask(job, row)
        stop.add(tuple(request.stop))
        try:
            prompt = policy.prompt_for(request, Draw(s.completion_tokens, s.temperature, s.top_p))
        except ImprintError as error:
            raise ImprintError(f"arm '{job.arm}': example {row['example_id']}: {error}") from error
        size = len(engine.tokens(prompt.text, prompt.breaks))
        if engine.limit is not None and size + s.completion_tokens > engine.limit:
            raise ImprintError(
                f"arm '{job.arm}': the prompt of example {row['example_id']} has {size} tokens, and with "
                f"completion_tokens: {s.completion_tokens} is beyond the model's {engine.limit} positions"
            )
        rows.append(
            {
                "prompt": prompt.text,
                "breaks": prompt.breaks,
                "example_id": row["example_id"],
                "messages": row["messages"],
                "reference": canonical(row.get("reference")),
                "fields": canonical(row.get("fields") or {}),
            }
        )
    for reward in rewards:
        reward.failed = 0
    if not rows:
        raise ImprintError(
            f"arm '{job.arm}': dataset '{job.settings.data}' has no row that the rewards can judge ({left_out} left "
            "out); check its references"
        )
    return rows, next(iter(stop)), left_out


def arguments(job: Fit, rewards: int) -> Any:
    """TRL's settings, all of them named, since their defaults change between releases."""
    from trl.trainer.grpo_config import GRPOConfig

    s = job.settings
    drawn = s.prompts_per_step * s.group_size
    size = s.micro_batch_size or drawn
    shared = fits.arguments(job, s.steps, s.learning_rate or (RATE_LORA if s.lora else RATE))
    return GRPOConfig(
        **shared,
        # TRL 1.16 reads this older name of activation_checkpointing.
        gradient_checkpointing=s.gradient_checkpointing,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=drawn // size,
        steps_per_generation=drawn // size,
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
        loss_type="dapo",  # the mean over all tokens of the step (arXiv 2503.14476)
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
    from imprint.training.grpo_trainer import Sampler, Trainer, shard

    fits.begin(job)
    _check_form(job)
    s = job.settings
    model, tokenizer = chains.load(job.manifests, "float32", job.device)
    model.name_or_path = ""  # otherwise an adapter names the folder that its model was read from
    sampler = Sampler(job, model, tokenizer)
    rewards = [Reward(term, job.contexts) for term in s.reward]
    rows, stop, left_out = prompts(job, sampler.policy, rewards)
    needed = s.steps * s.prompts_per_step
    places = order(len(rows), needed / len(rows), job.seed)
    with fits.quiet(), fits.adapter_errors(job):
        watch = Watch(job)
        run = Trainer(
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
    names = {name: name for name in ("loss", "learning_rate", "grad_norm", "reward", "reward_std", "kl", "entropy")}
    names |= {f"rewards/{reward.__name__}/mean": f"reward/{reward.__name__}" for reward in rewards}
    names |= {
        "completions/mean_length": "length",
        "completions/clipped_ratio": "truncated_share",
        "frac_reward_zero_std": "zero_variance_share",
        "unjudged": "unjudged_share",
    }
    curves = fits.curves(job, run.state.log_history, names)
    parquet.write(job.out / "curves.parquet", "curves", curves)
    values: dict[str, list[float]] = {name: [] for name in names.values()}
    for row in curves:
        values[row["quantity"]].append(row["value"])
    metrics = {
        "steps": s.steps,
        "rows": len(rows),
        "unscorable_rows": left_out,
        "completions": s.steps * s.prompts_per_step * s.group_size,
        "first_reward": values["reward"][0],
        "final_reward": values["reward"][-1],
        "zero_variance_share": sum(values["zero_variance_share"]) / s.steps,
        "unjudged_share": sum(values["unjudged_share"]) / s.steps,
    }
    return metrics
