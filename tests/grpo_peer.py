"""TRL's own GRPOTrainer on the rows of a fit, made to draw the same completions: the oracle of ours, and its peer in
`benchmarks/grpo_step.py`.

TRL draws tokens with `torch.multinomial`. While `coupled` is open, that call takes the uniform numbers that our sampler
takes for the same step and place, so that equal weights give equal completions (in fp32).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import datasets
import torch
from trl.trainer.grpo_trainer import GRPOTrainer

from imprint.draws import seed_of
from imprint.methods import Fit, grpo
from imprint.models import chains
from imprint.training import fits
from imprint.training.rewards import Reward


class Peer(GRPOTrainer):
    """Unchanged but for the files and calls that would leave this machine or fill the folder."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _send_telemetry(self) -> None:
        pass


def peer(job: Fit, rows: list[dict[str, Any]], **changed: Any) -> Peer:
    """TRL's trainer with the settings of a fit, on rows in training order."""
    model, tokenizer = chains.load(job.manifests, "float32", job.device)
    rewards = [Reward(term, job.contexts) for term in job.settings.reward]
    args = grpo.arguments(job, len(rewards))
    for name, value in changed.items():
        setattr(args, name, value)
    return Peer(
        model=model,
        args=args,
        reward_funcs=rewards,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=fits.lora_config(job.settings.lora),
    )


def published_loss(kind: str, now: list[Any], then: list[Any], advantages: list[float], s: Any, parts: Any) -> Any:
    """The clipped loss of one update from the papers' formulas, one completion at a time: arXiv 2402.03300 (grpo),
    2503.14476 (dapo), 2503.20783 (dr_grpo), and TRL's bnpo. `now` and `then` hold the log-probabilities of each
    completion's tokens under the weights of the update and under those that drew the tokens. `parts` are the places of
    the completions in each backward pass. `s` are the settings, and `s.mean_tokens` the tokens of a mean update."""
    losses = []
    for new, old, advantage in zip(now, then, advantages, strict=True):
        ratio = (new - old).exp()
        losses.append(-torch.minimum(ratio * advantage, ratio.clamp(1 - s.epsilon, 1 + s.epsilon) * advantage))
    if kind == "grpo":
        return sum(loss.mean() for loss in losses) / len(losses)
    if kind == "dapo":
        return sum(loss.sum() for loss in losses) / s.mean_tokens
    if kind == "dr_grpo":
        return sum(loss.sum() for loss in losses) / (len(losses) * s.completion_tokens)
    return sum(torch.cat([losses[i] for i in part]).mean() for part in parts) / len(parts)


@contextmanager
def coupled(job: Fit, trainer: Any) -> Iterator[None]:
    """Draw what our sampler draws: by the inverse of the distribution function, with its uniform numbers."""
    original = torch.multinomial
    seen: dict[int, int] = {}

    def multinomial(weights: torch.Tensor, num_samples: int, **_: Any) -> torch.Tensor:
        step = trainer.state.global_step // job.settings.updates_per_rollout
        token = seen.get(step, 0)
        seen[step] = token + 1
        chosen = []
        for place, row in enumerate(weights):
            generator = torch.Generator().manual_seed(seed_of(job.seed, step, place))
            draws = torch.rand(job.settings.completion_tokens, generator=generator, dtype=torch.float64)
            reached = row.double().cumsum(0)
            chosen.append((reached <= draws[token] * reached[-1]).sum().clamp(max=len(row) - 1))
        return torch.stack(chosen)[:, None]

    torch.multinomial = multinomial  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.multinomial = original
