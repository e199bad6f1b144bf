"""DARE (Yu et al., arXiv 2311.03099): keep each entry of a task vector with probability `density`, divide it by
`density`, and add the vectors up. The seed and the names of arm and block decide which entries are kept.

fit: {method: dare, vectors: [self_prompt, ppe_plan], density: 0.1}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from imprint.composition import merging
from imprint.composition.merging import inputs
from imprint.methods import Fit

__all__ = ["Settings", "fit", "inputs"]

if TYPE_CHECKING:
    import torch

    from imprint.composition.vectors import Pool


class Settings(merging.Scaled):
    density: float = Field(
        0.1, gt=0, le=1, description="probability of keeping an entry (the paper drops 90% and more)"
    )


def fit(job: Fit) -> dict[str, Any]:
    """Merge."""
    import torch

    from imprint.composition.vectors import generator

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
