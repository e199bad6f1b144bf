"""TIES (Yadav et al., arXiv 2306.01708): trim each task vector to its largest entries, elect the sign of the vectors'
sum at every position, and take the mean of the entries with the elected sign.

The paper trims over a full vector; `per: tensor` trims within each tensor, as mergekit does. The sign of a zero sum is
plus.

fit: {method: ties, vectors: [self_prompt, ppe_plan]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from imprint.composition import merging
from imprint.composition.merging import draws, inputs
from imprint.methods import Fit

__all__ = ["Settings", "draws", "fit", "inputs"]

if TYPE_CHECKING:
    import torch

    from imprint.composition.vectors import Pool


class Settings(merging.Scaled):
    density: float = Field(0.2, gt=0, le=1, description="share of entries that is kept, the largest (published)")
    per: Literal["vector", "tensor"] = Field("vector", description="of what that share is taken (published: vector)")


def elect(trimmed: list[torch.Tensor]) -> torch.Tensor:
    """At every position, the mean of the entries that have the sign of the entries' sum. Zeros do not count."""
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
    """A tensor with all but its int(density x size) largest entries set to zero. At least one entry is kept."""
    import torch

    flat = delta.view(-1)
    keep = flat.abs().topk(max(1, int(density * flat.numel())), sorted=False).indices
    return torch.zeros_like(flat).index_copy_(0, keep, flat[keep]).view(delta.shape)
