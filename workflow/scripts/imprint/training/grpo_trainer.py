"""TRL's GRPOTrainer with our own sampling and our own forward pass. Imports torch, so only fits import this module.

TRL computes the advantages, the loss, clipping, KL and metrics. Where a rollout has several updates, TRL deals the
completions out to them at random, and computes the log-probabilities of the weights that drew them before the first.
TRL's `global_step` counts updates. We replace two things:

- Sampling: an engine decodes from a copy of the weights in the generation dtype. Each completion has its own seed,
  made of the fit's seed, the step and the completion's index. So a resumed fit draws the same completions as an
  unbroken one.
- Log-probabilities: the completions of a group share a prompt. The model reads the prompt once, and all completions use
  its keys and values. The output layer computes the completions' tokens only. A completion with advantage 0 has a zero
  gradient, so no gradient is computed for it. TRL's own pass runs with gradient checkpointing, which cannot keep the
  keys and values, and where several ranks share the weights: FSDP2 has no gradient for two passes that belong together.

Of several ranks, each draws its part of a step's completions, in order, and judges them. They are dealt out to the
updates as one rank would deal them, so a rank computes on completions that others have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head, split_tensor_dict

from imprint.draws import seed_of
from imprint.engines import Drawn, Prompt
from imprint.methods import Fit
from imprint.models import chains
from imprint.policies.policy import Policy
from imprint.runtime import parquet, plugins
from imprint.runtime.errors import ImprintError
from imprint.training import fits
from imprint.training.rewards import Reward
from imprint.training.sharded import Sharded
from imprint.training.shared_prompt import shared_prompt_logps

BATCH = {"cpu": 32}  # sequences decoded together, by type of device; `fits.SAMPLED` on others


class Sampler:
    """The copy of the policy that draws completions, in an engine of its own. It has the trained weights with adapters
    merged, in the dtype of generation. Ranks that share the weights have a whole copy each."""

    def __init__(self, job: Fit) -> None:
        s = job.settings
        size = min(BATCH.get(job.device, fits.SAMPLED), s.completions // job.ranks.size)
        start = plugins.load("engines", s.sampler).sampler
        self.engine: Any = start(job.manifests, job.dtype, job.device, size, s.completion_tokens)
        self.policy = Policy(self.engine, job.contexts, None, job.inputs)
        self._begun = False

    @torch.no_grad()
    def sync(self, trained: Any) -> None:
        """Give the engine the weights of the model in training, one after the other. With an adapter only the adapted
        layers follow after the first time, since the others never change."""
        self.engine.renew(self._weights(trained))
        self._begun = True

    def _weights(self, trained: Any) -> Iterator[tuple[str, torch.Tensor]]:
        adapted = hasattr(trained, "peft_config")
        model = trained.get_base_model() if adapted else trained
        merged = set()
        for name, module in model.named_modules():
            if hasattr(module, "get_delta_weight") and hasattr(module, "base_layer"):
                weight = _whole(module.base_layer.weight)
                for adapter in module.active_adapters:
                    weight = weight + module.get_delta_weight(adapter)
                merged |= {f"{name}.{part}" for part, _ in module.named_parameters() if part != "base_layer.bias"}
                yield f"{name}.weight", weight
        if not adapted or not self._begun:
            for name, weight in model.named_parameters():
                if name not in merged:
                    yield name.replace(".base_layer.", "."), _whole(weight)

    def draw(self, prompts: list[Prompt]) -> tuple[list[list[int]], list[Drawn]]:
        """Token ids of each prompt, and what the engine has written behind each."""
        tokens = [self.engine.tokens(prompt.text, prompt.breaks) for prompt in prompts]
        return tokens, self.engine.decode(prompts, tokens)


def _whole(weight: Any) -> Any:
    """All of a weight of which this rank may hold a part."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


class Trainer(GRPOTrainer):
    """GRPO over the completions that `sampler` draws, with the settings of `job`. A completion ends at one of the texts
    `stop`. The setting `beta` is the weight of the KL term. Its reference model is a copy of the weights that the fit
    starts from, where TRL would load a model by its hub name."""

    def __init__(self, job: Fit, sampler: Sampler, stop: tuple[str, ...], model: Any, **options: Any) -> None:
        beta = job.settings.beta
        reference = self._reference(job, model) if beta and job.settings.lora is None else None
        super().__init__(model=model, **options)
        self.job, self.sampler, self.stop, self._ranks = job, sampler, stop, job.ranks
        self.rewards: list[Reward] = options["reward_funcs"]
        self.beta = beta
        if reference is not None:
            add_fused_lm_head(reference, temperature=self.temperature)  # TRL's own pass calls it
            self.ref_model = reference.requires_grad_(False)
        self.rollout_func = self._rollout
        self._breaks: list[tuple[int, ...]] = []
        """The breaks of each prompt of the step."""
        self._rows: list[Drawn] = []
        """What the engine has written for each completion of the step."""
        self._terms: torch.Tensor | None = None
        """The reward terms of this rank's completions of the step, [completions, terms]."""
        self._has_gradient: torch.Tensor | None = None
        """While a loss is computed: which completions get a gradient, [completions], or None for all."""

    @staticmethod
    def _reference(job: Fit, model: Any) -> Any:
        """A copy of the model before the fit, in eval mode. It is in the number format of generation: it is read only,
        and in bf16 its rounding adds some 0.002 nats a token to the KL term (docs/scaling.md)."""
        return chains.copied(model, job.dtype)

    @property
    def _places(self) -> range:
        """The places, among the completions of a step, of those that this rank draws."""
        count = self.job.settings.completions // self._ranks.size
        return range(self._ranks.place * count, (self._ranks.place + 1) * count)

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
            for place, text, breaks in zip(self._places, prompts, self._breaks, strict=True)
        ]
        tokens, self._rows = self.sampler.draw(seeded_prompts)
        return {"prompt_ids": tokens, "completion_ids": [row.tokens for row in self._rows], "logprobs": None}

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):  # type: ignore[no-untyped-def]
        texts = [row.text() for row in self._rows]  # these end before a stop text; the tokens include it
        terms = super()._calculate_rewards(inputs, prompts, texts, completion_ids_list)  # those of all ranks
        self._terms = own = terms[self._places.start : self._places.stop]
        if not torch.isfinite(own).all():
            row, term = (~torch.isfinite(own)).nonzero()[0].tolist()
            raise ImprintError(
                f"arm '{self.job.arm}': the reward {self.reward_func_names[term]} is {float(own[row, term])} at "
                f"step {self._step_number + 1} for example {inputs[row]['example_id']}; its reference cannot be "
                "judged: take the row out of the dataset"
            )
        return terms

    def _generate_and_score_completions(self, inputs):  # type: ignore[no-untyped-def]
        self._breaks = [tuple(row["breaks"]) for row in inputs]  # TRL passes only the prompts' texts to `_rollout`
        batch = super()._generate_and_score_completions(inputs)
        assert self._terms is not None
        step = self._step_number + 1
        weights = self.reward_weights.tolist()
        failed = self._ranks.total(sum(reward.failed for reward in self.rewards))
        self._metrics["train"]["unjudged"].append(failed / self.job.settings.completions)
        for reward in self.rewards:
            reward.failed = 0
        rows = []
        judged = zip(inputs, self._rows, self._terms.tolist(), batch["advantages"].tolist(), strict=True)
        for place, (row, drawn, terms, advantage) in zip(self._places, judged, strict=True):
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
                    "advantage": advantage,
                }
            )
        rows = self._ranks.of_all(rows)
        if self._ranks.place == 0:
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
        if self.args.gradient_checkpointing or self._ranks.size > 1 or head < 1:
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


class ShardedTrainer(Sharded, Trainer):
    """The trainer of one of several ranks, which share the weights."""

    @staticmethod
    def _reference(job: Fit, model: Any) -> Any:
        """The weights that the fit starts from, shared as the model's are, since those cannot be copied. No backward
        pass follows after which the ranks would give up whole weights, so they do it after every forward pass."""
        reference, _ = chains.load(job.manifests, job.dtype, job.device, job.ranks.size)
        reference.set_reshard_after_forward(True)
        return reference

    def _prepare_inputs(self, generation_batch):  # type: ignore[no-untyped-def]
        """The next pass's completions of this rank. TRL's own method would deal each rank's completions out to its own
        passes."""
        passes = self.args.steps_per_generation
        if self._step % passes == 0 or self._buffered_inputs is None:
            batch: Any = self._dealt(self._generate_and_score_completions(generation_batch))  # type: ignore[no-untyped-call]
            self._buffered_inputs: Any = split_tensor_dict(batch, passes)
        return self._buffered_inputs[self._step % passes]

    def _dealt(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """This rank's part of each pass, of the completions that all ranks have drawn. Rank 0 shuffles them with the
        random numbers with which one rank would, so the ranks' passes together are those of one rank whose passes are
        as many times as large."""
        count = self.job.settings.completions
        order = self._ranks.first(lambda: torch.randperm(count))
        own = order.view(self.args.steps_per_generation, self._ranks.size, -1)[:, self._ranks.place].flatten()
        dealt = {}
        for name, tensor in batch.items():
            if tensor.ndim:  # else a number of all ranks
                left = name.startswith("prompt")
                padded = self.accelerator.pad_across_processes(tensor, dim=1, pad_first=left)
                tensor = self.accelerator.gather(padded)[own.to(tensor.device)]
            dealt[name] = tensor
        return dealt


def shard(folder: Path, step: int) -> Path:
    """The file in a fit's work folder that keeps the completions of one step until the fit ends."""
    return folder / "rollouts" / f"{step:06d}.parquet"
