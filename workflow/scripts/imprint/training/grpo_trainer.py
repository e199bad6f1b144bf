"""TRL's GRPOTrainer with our sampling and a forward pass that reads a group's prompt once. Imports torch: only fits
import this module.

What TRL does stays TRL's: advantages, loss, clipping, KL, metrics. Replaced are

- sampling: `imprint.engines.transformers` decodes from a copy of the weights in the generation dtype. Every completion
  is drawn with a seed of its own from (seed, step, place), so a resumed fit draws what an unbroken one does;
- log-probabilities: the completions of a group share their prompt, so it is read once and its keys and values serve all
  of them, and the output layer sees the completions' tokens only. Completions without an advantage, whose gradient is
  zero, are read without one. With gradient checkpointing, which cannot keep such a cache, the pass is TRL's.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache
from trl.trainer.grpo_trainer import GRPOTrainer

from imprint.draws import seed_of
from imprint.engines import Prompt
from imprint.methods import Fit
from imprint.policies import policy
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.training.rewards import Reward

BATCH = {"cpu": 32}  # sequences decoded together, by device
BATCH_ELSEWHERE = 256
ENTROPY_ROWS = 128  # positions whose distribution over the vocabulary is held once more


class Sampler:
    """A copy of the policy that completions are drawn from: same weights, generation's dtype, adapters merged."""

    def __init__(self, job: Fit, model: Any, tokenizer: Any) -> None:
        size = BATCH.get(model.device.type, BATCH_ELSEWHERE)
        copied = copy.deepcopy(model).to(getattr(torch, job.dtype)).eval()
        self.policy = policy.over(copied, tokenizer, size, job.contexts, job.inputs)
        self.engine: Any = self.policy.engine
        self.weights = dict(self.engine.model.named_parameters())

    @torch.no_grad()
    def sync(self, trained: Any) -> None:
        """Take over the policy's weights. Under an adapter only the adapted layers change after the first time."""
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
        """Token ids of the prompts, and the rows that were decoded behind them."""
        tokens = [self.engine.tokens(prompt.text, prompt.breaks) for prompt in prompts]
        rows: list[Any] = []
        with torch.inference_mode():
            for start in range(0, len(prompts), self.engine.batch_size):
                part = slice(start, start + self.engine.batch_size)
                rows += self.engine.decode(prompts[part], tokens[part])
        return tokens, rows


class Trainer(GRPOTrainer):
    """`sampler` draws, `job` says how, `stop` are texts that end a completion, and `beta` weighs the KL term (TRL would
    load the reference model from a hub name; here it is a copy of the weights that the fit starts from)."""

    def __init__(self, job: Fit, sampler: Sampler, stop: tuple[str, ...], model: Any, **options: Any) -> None:
        beta = job.settings.beta
        reference = copy.deepcopy(model).eval() if beta and job.settings.lora is None else None
        super().__init__(model=model, **options)
        self.job, self.sampler, self.stop = job, sampler, stop
        self.rewards: list[Reward] = options["reward_funcs"]
        self.beta = beta
        if reference is not None:
            self.ref_model = reference.requires_grad_(False)
        self.rollout_func = self._rollout
        self._breaks: list[tuple[int, ...]] = []
        self._rows: list[Any] = []
        self._terms: torch.Tensor | None = None
        self._moving: torch.Tensor | None = None

    def _rollout(self, prompts: list[str], _: Any) -> dict[str, Any]:
        """Draw a completion for every prompt."""
        s = self.job.settings
        self.sampler.sync(self.accelerator.unwrap_model(self.model))
        asked = [
            Prompt(
                text,
                s.completion_tokens,
                self.stop,
                s.temperature,
                s.top_p,
                seed_of(self.job.seed, self.state.global_step, place),
                breaks,
            )
            for place, (text, breaks) in enumerate(zip(prompts, self._breaks, strict=True))
        ]
        tokens, self._rows = self.sampler.draw(asked)
        return {"prompt_ids": tokens, "completion_ids": [row.tokens for row in self._rows], "logprobs": None}

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):  # type: ignore[no-untyped-def]
        texts = [row.text() for row in self._rows]  # cut before a stop text, unlike the tokens
        terms = super()._calculate_rewards(inputs, prompts, texts, completion_ids_list)
        if not torch.isfinite(terms).all():
            place, term = (~torch.isfinite(terms)).nonzero()[0].tolist()
            raise ImprintError(
                f"arm '{self.job.arm}': the reward {self.reward_func_names[term]} is {float(terms[place, term])} at "
                f"step {self.state.global_step + 1} for example {inputs[place]['example_id']}; its reference cannot be "
                "judged: take the row out of the dataset"
            )
        self._terms = terms
        return terms

    def _generate_and_score_completions(self, inputs):  # type: ignore[no-untyped-def]
        self._breaks = [tuple(row["breaks"]) for row in inputs]  # TRL hands on the texts alone
        batch = super()._generate_and_score_completions(inputs)
        assert self._terms is not None
        step = self.state.global_step + 1
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
        if not self.beta:
            self._moving = (inputs["advantages"] != 0).float()
            if not self._moving.any():
                self._moving[0] = 1  # a gradient of zeros, on which the optimizer's momentum moves on
        loss = super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        self._moving = None
        return loss

    def _get_per_token_logps_and_entropies(  # type: ignore[no-untyped-def]
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **others
    ):
        head = input_ids.size(1) - logits_to_keep - 1  # columns of the prompts but for their last token
        if self.args.gradient_checkpointing or head < 1:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **others
            )
        moving = torch.ones(len(input_ids), device=input_ids.device) if self._moving is None else self._moving
        order = moving.argsort(descending=True, stable=True)
        count = int(moving.sum())
        passes = []
        # With a gradient first: autocast keeps the weights that it has cast, and those of a pass without one have none.
        with self.accelerator.autocast():
            for rows, gradient in ((order[:count], torch.is_grad_enabled()), (order[count:], False)):
                if len(rows):
                    with torch.set_grad_enabled(gradient):
                        passes.append(
                            shared_prompt_logps(
                                model, input_ids[rows], attention_mask[rows], head, self.temperature, compute_entropy
                            )
                        )
        back = order.argsort()
        logps, entropies = (None if parts[0] is None else torch.cat(parts)[back] for parts in zip(*passes, strict=True))
        return logps, entropies, None

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: an arm's manifest says what it is."""

    def _send_telemetry(self) -> None:
        """None: a fit uses no network."""


def shard(folder: Path, step: int) -> Path:
    """Where the completions of one step are kept until the fit is done."""
    return folder / "rollouts" / f"{step:06d}.parquet"


def shared_prompt_logps(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, head: int, temperature: float, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probabilities (and entropies, without gradient) of the tokens after column `head`: (rows, columns - head - 1)
    values, 0 where masked. Columns up to `head` are the prompts without their last token, padded at the left; equal
    ones are read once, with their gradient summed over the rows that share them."""
    marked = ids[:, :head].masked_fill(mask[:, :head] == 0, -1)
    distinct, which = torch.unique(marked, dim=0, return_inverse=True)
    shown = (distinct >= 0).long()
    cache = DynamicCache(config=model.config)
    model(
        input_ids=distinct.clamp(min=0),
        attention_mask=shown,
        position_ids=(shown.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_select_indices(which)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    scored = mask[:, head + 1 :].bool()
    output = (model.get_base_model() if hasattr(model, "peft_config") else model).get_output_embeddings()
    # The model's own forward makes the logits, so whatever an architecture does to them is kept.
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
    blank = torch.zeros(scored.shape, device=ids.device)
    logps = blank.masked_scatter(scored, -torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    if not entropy:
        return logps, None
    with torch.no_grad():
        entropies = torch.cat([_entropies(part) for part in logits.split(ENTROPY_ROWS)])
    return logps, blank.masked_scatter(scored, entropies)


def _entropies(logits: torch.Tensor) -> torch.Tensor:
    logps = logits.log_softmax(1)
    return -(logps.exp() * logps).sum(1)
