"""TRL's GRPOTrainer with our own sampling and our own forward pass. Imports torch, so only fits import this module.

TRL computes the advantages, the loss, clipping, KL and metrics. Where a rollout has several updates, TRL deals the
completions out to them at random, and computes the log-probabilities of the weights that drew them before the first.
TRL's `global_step` counts updates. We replace two things:

- Sampling: `imprint.engines.transformers` decodes from a copy of the weights in the generation dtype. Each completion
  has its own seed, made of the fit's seed, the step and the completion's index. So a resumed fit draws the same
  completions as an unbroken one.
- Log-probabilities: the completions of a group share a prompt. The model reads the prompt once, and all completions use
  its keys and values. The output layer computes the completions' tokens only. A completion with advantage 0 has a zero
  gradient, so no gradient is computed for it. Gradient checkpointing cannot keep the keys and values, so with it TRL's
  own pass runs.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from imprint.draws import seed_of
from imprint.engines import Prompt
from imprint.methods import Fit
from imprint.models import chains
from imprint.policies import policy
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.training import fits
from imprint.training.rewards import Reward

BATCH = {"cpu": 32}  # sequences decoded together, by type of device; `fits.SAMPLED` on others
ENTROPY_ROWS = 128  # positions in one computation of entropies, which holds a second copy of their logits


class Sampler:
    """The copy of the policy that draws completions. It has the trained weights with adapters merged, in the dtype of
    generation."""

    def __init__(self, job: Fit, model: Any, tokenizer: Any) -> None:
        size = BATCH.get(model.device.type, fits.SAMPLED)
        self.policy = policy.over(chains.copied(model, job.dtype), tokenizer, size, job.contexts, job.inputs)
        self.engine: Any = self.policy.engine
        self.weights = dict(self.engine.model.named_parameters())

    @torch.no_grad()
    def sync(self, trained: Any) -> None:
        """Copy the weights of the model in training. With an adapter only the adapted layers are copied, since the
        others never change."""
        adapted = hasattr(trained, "peft_config")
        model = trained.get_base_model() if adapted else trained
        for name, module in model.named_modules():
            if hasattr(module, "get_delta_weight") and hasattr(module, "base_layer"):
                weight = module.base_layer.weight
                for adapter in module.active_adapters:
                    weight = weight + module.get_delta_weight(adapter)
                self.weights[f"{name}.weight"].copy_(weight)
        if not adapted:
            for name, weight in model.named_parameters():
                self.weights[name].copy_(weight)

    def draw(self, prompts: list[Prompt]) -> tuple[list[list[int]], list[Any]]:
        """Token ids of each prompt, and the engine's row with the completion of each prompt."""
        tokens = [self.engine.tokens(prompt.text, prompt.breaks) for prompt in prompts]
        rows: list[Any] = []
        with torch.inference_mode():
            for start in range(0, len(prompts), self.engine.batch_size):
                batch = slice(start, start + self.engine.batch_size)
                rows += self.engine.decode(prompts[batch], tokens[batch])
        return tokens, rows


class Trainer(GRPOTrainer):
    """GRPO over the completions that `sampler` draws, with the settings of `job`. A completion ends at one of the texts
    `stop`. The setting `beta` is the weight of the KL term. Its reference model is a copy of the weights that the fit
    starts from, where TRL would load a model by its hub name."""

    def __init__(self, job: Fit, sampler: Sampler, stop: tuple[str, ...], model: Any, **options: Any) -> None:
        beta = job.settings.beta
        reference = copy.deepcopy(model).eval() if beta and job.settings.lora is None else None
        super().__init__(model=model, **options)
        self.job, self.sampler, self.stop = job, sampler, stop
        self.rewards: list[Reward] = options["reward_funcs"]
        self.beta = beta
        if reference is not None:
            add_fused_lm_head(reference, temperature=self.temperature)  # TRL's own pass calls it
            self.ref_model = reference.requires_grad_(False)
        self.rollout_func = self._rollout
        self._breaks: list[tuple[int, ...]] = []
        """The breaks of each prompt of the step."""
        self._rows: list[Any] = []
        """The engine's row for each completion of the step."""
        self._terms: torch.Tensor | None = None
        """The reward terms of the step, [completions, terms]."""
        self._has_gradient: torch.Tensor | None = None
        """While a loss is computed: which completions get a gradient, [completions], or None for all."""

    @property
    def _step_number(self) -> int:
        """The number of the step, from 0 on, whose completions are drawn."""
        return int(self.state.global_step // self.job.settings.updates_per_rollout)

    def _rollout(self, prompts: list[str], _: Any) -> dict[str, Any]:
        """Draw a completion for every prompt."""
        s = self.job.settings
        self.sampler.sync(self.accelerator.unwrap_model(self.model))
        seeded_prompts = [
            Prompt(
                text,
                s.completion_tokens,
                self.stop,
                s.temperature,
                s.top_p,
                seed_of(self.job.seed, self._step_number, place),
                breaks,
            )
            for place, (text, breaks) in enumerate(zip(prompts, self._breaks, strict=True))
        ]
        tokens, self._rows = self.sampler.draw(seeded_prompts)
        return {"prompt_ids": tokens, "completion_ids": [row.tokens for row in self._rows], "logprobs": None}

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):  # type: ignore[no-untyped-def]
        texts = [row.text() for row in self._rows]  # these end before a stop text; the tokens include it
        terms = super()._calculate_rewards(inputs, prompts, texts, completion_ids_list)
        if not torch.isfinite(terms).all():
            place, term = (~torch.isfinite(terms)).nonzero()[0].tolist()
            raise ImprintError(
                f"arm '{self.job.arm}': the reward {self.reward_func_names[term]} is {float(terms[place, term])} at "
                f"step {self._step_number + 1} for example {inputs[place]['example_id']}; its reference cannot be "
                "judged: take the row out of the dataset"
            )
        self._terms = terms
        return terms

    def _generate_and_score_completions(self, inputs):  # type: ignore[no-untyped-def]
        self._breaks = [tuple(row["breaks"]) for row in inputs]  # TRL passes only the prompts' texts to `_rollout`
        batch = super()._generate_and_score_completions(inputs)
        assert self._terms is not None
        step = self._step_number + 1
        weights = self.reward_weights.tolist()
        self._metrics["train"]["unjudged"].append(sum(reward.failed for reward in self.rewards) / len(self._rows))
        for reward in self.rewards:
            reward.failed = 0
        rows = []
        for place, (row, drawn) in enumerate(zip(inputs, self._rows, strict=True)):
            terms = self._terms[place].tolist()
            rows.append(
                {
                    "arm": self.job.arm,
                    "seed": self.job.seed,
                    "step": step,
                    "example_id": row["example_id"],
                    "sample": place % self.job.settings.group_size,
                    "prompt": row["prompt"],
                    "response": drawn.text(),
                    "response_tokens": len(drawn.tokens),
                    "finish_reason": drawn.reason,
                    "logprob_sum": drawn.logprob,
                    "rewards": dict(zip(self.reward_func_names, terms, strict=True)),
                    "reward": sum(weight * term for weight, term in zip(weights, terms, strict=True)),
                    "advantage": float(batch["advantages"][place]),
                }
            )
        parquet.write(shard(self.job.folder, step), "rollouts", rows)
        return batch

    def _compute_loss(self, model, inputs):  # type: ignore[no-untyped-def]
        if not self.beta:  # the KL term has a gradient for every completion
            self._has_gradient = inputs["advantages"] != 0
            if not self._has_gradient.any():
                self._has_gradient[0] = True  # its gradient of zeros lets the optimizer's momentum act
        loss = super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        self._has_gradient = None
        return loss

    def _get_per_token_logps_and_entropies(  # type: ignore[no-untyped-def]
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **others
    ):
        head = input_ids.size(1) - logits_to_keep - 1  # columns of the prompts without their last token
        if self.args.gradient_checkpointing or head < 1:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **others
            )
        everyone = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        has_gradient = everyone if self._has_gradient is None else self._has_gradient
        order = has_gradient.int().argsort(descending=True, stable=True)
        count = int(has_gradient.sum())
        passes = []
        # Gradient rows go first: autocast caches cast weights, and a cache filled under no_grad has no graph.
        with self.accelerator.autocast():
            for rows, gradient in ((order[:count], torch.is_grad_enabled()), (order[count:], False)):
                for part in torch.split(rows, batch_size or len(rows)) if len(rows) else ():
                    with torch.set_grad_enabled(gradient):
                        passes.append(
                            shared_prompt_logps(
                                model, input_ids[part], attention_mask[part], head, self.temperature, compute_entropy
                            )
                        )
        inverse = order.argsort()
        logps, entropies = (
            None if tensors[0] is None else torch.cat(tensors)[inverse] for tensors in zip(*passes, strict=True)
        )
        return logps, entropies, None

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: an arm's manifest describes it."""

    def _send_telemetry(self) -> None:
        """Send nothing: a fit uses no network."""


def shard(folder: Path, step: int) -> Path:
    """The file in a fit's work folder that keeps the completions of one step until the fit ends."""
    return folder / "rollouts" / f"{step:06d}.parquet"


def shared_prompt_logps(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, head: int, temperature: float, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probabilities of the tokens after column `head`, [rows, columns - head - 1], in nats, and their entropies if
    `entropy`, else None. Entropies have no gradient. Masked tokens get 0.

    `ids` and `mask` are [rows, columns]. The first `head` columns hold the prompts without their last token, padded on
    the left. The model reads equal prompts once; their gradient is the sum over the rows that share them. Logits are
    divided by `temperature`."""
    unpadded = ids[:, :head].masked_fill(mask[:, :head] == 0, -1)  # -1 marks padding
    prompts, prompt_of_row = torch.unique(unpadded, dim=0, return_inverse=True)
    prompt_mask = (prompts >= 0).long()
    cache = DynamicCache(config=model.config)
    model(
        input_ids=prompts.clamp(min=0),
        attention_mask=prompt_mask,
        position_ids=(prompt_mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_select_indices(prompt_of_row)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    scored = mask[:, head + 1 :].bool()
    output = (model.get_base_model() if hasattr(model, "peft_config") else model).get_output_embeddings()
    # The model's own forward pass computes the logits, so what an architecture does to them is kept.
    hook = output.register_forward_pre_hook(lambda _, hidden: (hidden[0][scored],))
    try:
        logits = model(
            input_ids=ids[:, head:-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, head:-1],
            past_key_values=cache,
            use_cache=True,
        ).logits
    finally:
        hook.remove()
    logits = logits.float() if temperature == 1 else logits.float() / temperature
    targets = ids[:, head + 1 :][scored]
    zeros = torch.zeros(scored.shape, device=ids.device)
    logps = zeros.masked_scatter(scored, -torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    if not entropy:
        return logps, None
    with torch.no_grad():
        entropies = torch.cat([_entropies(rows) for rows in logits.split(ENTROPY_ROWS)])
    return logps, zeros.masked_scatter(scored, entropies)


def _entropies(logits: torch.Tensor) -> torch.Tensor:
    logps = logits.log_softmax(1)
    return -(logps.exp() * logps).sum(1)
