"""Model breadcrumbs (Davari and Belilovsky, arXiv 2312.06795): in each tensor of a task vector, drop the largest
entries, which are outliers, and the smallest ones, which are noise. Add up the remaining entries without rescaling.

fit: {method: breadcrumbs, vectors: [self_prompt, ppe_plan]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from imprint.composition import merging
from imprint.composition.settings import reads
from imprint.methods import Fit
from imprint.runtime.plugins import Inputs

if TYPE_CHECKING:
    import torch


class Settings(merging.Scaled):
    scale: float = Field(0.3, description="what the sum is multiplied with before it is added to the start (published)")
    outliers: float = Field(0.007, ge=0, lt=1, description="share of entries that is dropped at the top (published)")
    noise: float = Field(0.85, ge=0, lt=1, description="share of entries that is dropped at the bottom (published)")

    @model_validator(mode="after")
    def _something_is_left(self) -> Settings:
        if self.outliers + self.noise >= 1:
            raise ValueError(f"found outliers {self.outliers} and noise {self.noise}; together they drop everything")
        return self


def inputs(settings: Settings) -> Inputs:
    """The arms behind the vectors."""
    return reads(settings)


def middle(delta: torch.Tensor, outliers: float, noise: float) -> torch.Tensor:
    """A tensor with its int(outliers x size) largest and int(noise x size) smallest entries set to zero."""
    import torch

    flat = delta.view(-1)
    order = flat.abs().argsort(stable=True)
    keep = order[int(noise * len(flat)) : len(flat) - int(outliers * len(flat))]
    return torch.zeros_like(flat).index_copy_(0, keep, flat[keep]).view(delta.shape)


def fit(job: Fit) -> dict[str, Any]:
    """Merge."""
    import torch

    s: Settings = job.settings
    return merging.fit(
        job, lambda _: lambda _, deltas: torch.stack([middle(d, s.outliers, s.noise) for d in deltas]).sum(0)
    )
