"""Merging task vectors by a rule that looks at their elements, without any data: the frame that such methods share. A
block is multiplied out at a time, merged, and written; imports torch inside its functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from imprint.composition.settings import Vectors
from imprint.methods import Fit

if TYPE_CHECKING:
    import torch

    from imprint.composition.vectors import Pool, Vector

Rule = Callable[[str, "list[torch.Tensor]"], "torch.Tensor"]
"""Of a block's name and its task vectors (fp32), what is added to the start."""


class Scaled(Vectors):
    """A merge that is multiplied with one number."""

    scale: float = Field(1.0, description="what the merged vector is multiplied with before it is added to the start")


def fit(job: Fit, rule: Callable[[Pool], Rule]) -> dict[str, Any]:
    """Write start + scale x rule(vectors); `rule` may first look at the whole pool."""
    import torch

    from imprint.composition import writing
    from imprint.composition.vectors import Pool

    torch.set_num_threads(job.threads)
    pool = Pool(job.manifests, job.inputs.arms)
    merged = rule(pool)
    total = 0.0

    def compose(block: str) -> torch.Tensor:
        nonlocal total
        start = pool.start.read(block).to(torch.float32, copy=True).view(pool.blocks.shapes[block])
        added = merged(block, [vector.delta(block) for vector in pool.vectors])
        total += float(added.double().square().sum())
        return start.add_(added, alpha=job.settings.scale)

    writing.write(job.out, pool, compose)
    return {"tokens": 0, "vectors": len(pool.vectors), "norm": round(total**0.5, 6)}


def threshold(pool: Pool, vector: Vector, keep: float) -> float:
    """The magnitude that the `keep` largest share of all a vector's elements reaches. Exact, in two passes and without
    sorting: the bits of positive fp32 numbers are ordered as the numbers are."""
    import torch

    count = sum(torch.Size(shape).numel() for shape in pool.blocks.shapes.values())
    wanted = max(1, round(keep * count))  # the wanted-th largest
    high = 0
    for shift, width in ((16, 1 << 15), (0, 1 << 16)):
        histogram = torch.zeros(width, dtype=torch.int64)
        for block in pool.blocks.shapes:
            bits = vector.delta(block).abs().view(torch.int32).view(-1)
            if shift == 0:
                bits = bits[(bits >> 16) == high]
            histogram += torch.bincount((bits >> shift) & (width - 1), minlength=width)
        above = histogram.flip(0).cumsum(0)  # elements of at least each bin, from the top
        place = int(torch.searchsorted(above, wanted))
        wanted -= int(above[place - 1]) if place else 0
        reached = width - 1 - place
        high = reached if shift else (high << 16) | reached
    return float(torch.tensor(high, dtype=torch.int32).view(torch.float32))
