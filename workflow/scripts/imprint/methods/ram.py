"""Reinforced agent merging (RAM, arXiv 2601.13572, as mergekit defines it): reinforcement changes few weights, and each
task others, so that a mean would halve what a task alone has changed. An entry that several vectors change is averaged
over these vectors. An entry that one vector alone changes is kept, and multiplied with 1 + r x min(s, alpha), where s
is the number of the vector's shared entries for each unshared one.

    entries of two vectors   (0.2, 0.0, 0.4) and (0.4, 0.1, 0.0)   ->   (0.3, 0.1, 0.4) with r: 0

fit: {method: ram, vectors: [ppe_plan, ppe_code]}
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
    epsilon: float = Field(1e-5, ge=0, description="an entry up to this size counts as unchanged (mergekit)")
    r: float = Field(0.1, ge=0, description="how much unshared entries grow (mergekit's ramplus_tl; 0 is its ram)")
    alpha: float = Field(0.2, ge=0, description="largest s that counts (mergekit)")
    per: Literal["vector", "tensor"] = Field(
        "vector", description="over what entries are counted for s; mergekit counts within each tensor"
    )


def fit(job: Fit) -> dict[str, Any]:
    """Merge."""
    import torch

    s: Settings = job.settings

    def growth(counts: torch.Tensor) -> torch.Tensor:
        """The factor of each vector's unshared entries; `counts` has its (shared, unshared) entries, [vector, 2]."""
        shared, alone = counts.double().unbind(1)
        return 1 + s.r * (shared / alone.clamp(min=1)).clamp(max=s.alpha)

    def rule(pool: Pool) -> merging.Rule:
        whole = None
        if s.per == "vector":
            by_block = ([vector.delta(block) for vector in pool.vectors] for block in pool.blocks.shapes)
            whole = growth(torch.stack([counts(deltas, s.epsilon) for deltas in by_block]).sum(0))

        def merged(block: str, deltas: list[torch.Tensor]) -> torch.Tensor:
            factors = growth(counts(deltas, s.epsilon)) if whole is None else whole
            return combine(deltas, s.epsilon, factors)

        return merged

    return merging.fit(job, rule)


def counts(deltas: list[torch.Tensor], epsilon: float) -> torch.Tensor:
    """How many entries each vector changes with others and alone, [vector, 2]."""
    import torch

    changed = torch.stack(deltas).abs() > epsilon
    alone = changed & (changed.sum(0) == 1)
    both = [changed.flatten(1).sum(1) - alone.flatten(1).sum(1), alone.flatten(1).sum(1)]
    return torch.stack(both, 1)


def combine(deltas: list[torch.Tensor], epsilon: float, factors: torch.Tensor) -> torch.Tensor:
    """The merged vector of a block. `factors` [vector] multiply entries that a vector changes alone."""
    import torch

    stacked = torch.stack(deltas)
    changed = stacked.abs() > epsilon
    number = changed.sum(0)
    weights = torch.where(number == 1, factors.float().view(-1, *[1] * deltas[0].dim()), 1 / number.clamp(min=1))
    return (stacked * changed * weights).sum(0)
