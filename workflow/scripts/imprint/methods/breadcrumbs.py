"""Model breadcrumbs (Davari and Belilovsky, arXiv 2312.06795): in each tensor of a task vector, drop the largest
entries, which are outliers, and the smallest ones, which are noise. Add up the remaining entries without rescaling.

The defaults follow the paper's text as we know it, by tensor. The authors' released code masks each row of a tensor by
itself and begins its searches at `scale: 0.2, outliers: 0.006, noise: 0.844`: write these with `per: row`.

fit: {method: breadcrumbs, vectors: [self_prompt, ppe_plan]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from imprint.composition import merging
from imprint.composition.merging import draws, inputs
from imprint.methods import Fit

__all__ = ["Settings", "draws", "fit", "inputs"]

if TYPE_CHECKING:
    import torch


class Settings(merging.Scaled):
    scale: float | list[float] = Field(
        0.3,
        description="what the sum is multiplied with before it is added to the start; of several numbers, the first "
        "with the lowest loss on `data` is taken",
    )
    outliers: float = Field(0.007, ge=0, lt=1, description="share of entries that is dropped at the top")
    noise: float = Field(0.85, ge=0, lt=1, description="share of entries that is dropped at the bottom")
    per: Literal["tensor", "row"] = Field(
        "tensor", description="of what these shares are taken; row means the last dimension, as in the authors' code"
    )

    @model_validator(mode="after")
    def _something_is_left(self) -> Settings:
        if self.outliers + self.noise >= 1:
            raise ValueError(f"found outliers {self.outliers} and noise {self.noise}; together they drop everything")
        return self


def middle(delta: torch.Tensor, outliers: float, noise: float, per: str = "tensor") -> torch.Tensor:
    """A tensor with the int(outliers x size) largest and the int(noise x size) smallest entries of the tensor, or of
    each of its rows, set to zero."""
    import torch

    lines = delta.reshape(1, -1) if per == "tensor" else delta.reshape(-1, delta.shape[-1])
    size = lines.shape[1]
    order = lines.abs().argsort(dim=1, stable=True)
    keep = order[:, int(noise * size) : size - int(outliers * size)]
    return torch.zeros_like(lines).scatter_(1, keep, lines.gather(1, keep)).view(delta.shape)


def fit(job: Fit) -> dict[str, Any]:
    """Merge."""
    import torch

    s: Settings = job.settings
    return merging.fit(
        job, lambda _: lambda _, deltas: torch.stack([middle(d, s.outliers, s.noise, s.per) for d in deltas]).sum(0)
    )
