"""DARE (Yu et al., arXiv 2311.03099): keep each entry of a task vector with probability `density`, divide by it, and
add the vectors up. What is kept is drawn from the seed, the arm's and the block's name.

fit: {method: dare, vectors: [self_prompt, ppe_plan], density: 0.1}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from imprint import learning, merging
from imprint.methods import Fit, Inputs

if TYPE_CHECKING:
    import torch

    from imprint.vectors import Pool


class Settings(merging.Scaled):
    density: float = Field(
        0.1, gt=0, le=1, description="probability of keeping an entry (the paper drops 90% and more)"
    )


def inputs(settings: Settings) -> Inputs:
    """The arms behind the vectors."""
    return learning.inputs(settings)


def fit(job: Fit) -> dict[str, Any]:
    """Merge."""
    import torch

    from imprint.vectors import generator

    density = job.settings.density

    def rule(pool: Pool) -> merging.Rule:
        def merged(block: str, deltas: list[torch.Tensor]) -> torch.Tensor:
            total = torch.zeros_like(deltas[0])
            for vector, delta in zip(pool.vectors, deltas, strict=True):
                drawn = torch.rand(delta.shape, generator=generator("dare", job.seed, vector.name, block))
                total += delta * (drawn < density) / density
            return total

        return merged

    return merging.fit(job, rule)
