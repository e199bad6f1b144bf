"""TIES (Yadav et al., arXiv 2306.01708): trim each task vector to its largest entries, elect a sign per entry by mass,
take the mean of the entries that agree.

The paper trims over a whole vector; `per: tensor` trims within each tensor, as mergekit does. Where the mass is exactly
balanced the sign is plus.

fit: {method: ties, vectors: [self_prompt, ppe_plan]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from imprint import learning, merging
from imprint.methods import Fit, Inputs

if TYPE_CHECKING:
    import torch

    from imprint.vectors import Pool


class Settings(merging.Scaled):
    density: float = Field(0.2, gt=0, le=1, description="share of entries that is kept, the largest (published)")
    per: Literal["vector", "tensor"] = Field("vector", description="of what that share is taken (published: vector)")


def inputs(settings: Settings) -> Inputs:
    """The arms behind the vectors."""
    return learning.inputs(settings)


def elect(trimmed: list[torch.Tensor]) -> torch.Tensor:
    """The mean of the entries whose sign is that of their sum; zeros are no entries."""
    import torch

    stacked = torch.stack(trimmed)
    sign = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
    agree = stacked.sign() == sign
    return (stacked * agree).sum(0) / agree.sum(0).clamp(min=1)


def fit(job: Fit) -> dict[str, Any]:
    """Merge."""
    s: Settings = job.settings

    def rule(pool: Pool) -> merging.Rule:
        bounds = [merging.threshold(pool, vector, s.density) for vector in pool.vectors] if s.per == "vector" else []

        def merged(block: str, deltas: list[torch.Tensor]) -> torch.Tensor:
            if bounds:
                return elect([d * (d.abs() >= bound) for d, bound in zip(deltas, bounds, strict=True)])
            return elect([largest(d, s.density) for d in deltas])

        return merged

    return merging.fit(job, rule)


def largest(delta: torch.Tensor, density: float) -> torch.Tensor:
    """A tensor with all but its int(density x size) largest entries zero; at least one is kept."""
    import torch

    flat = delta.view(-1)
    keep = flat.abs().topk(max(1, int(density * flat.numel())), sorted=False).indices
    return torch.zeros_like(flat).index_copy_(0, keep, flat[keep]).view(delta.shape)
