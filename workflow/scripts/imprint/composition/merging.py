"""Merging task vectors by a rule on their elements, without data: the frame that such methods share. Blocks are
multiplied out, merged and written one at a time. The methods' settings use this module, so torch is imported inside
functions."""

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
"""Block's name, and its task vectors (fp32, the block's shape) -> the merged vector in the block (fp32, its shape)."""


class Scaled(Vectors):
    """The settings of a merge whose vector is multiplied with one number."""

    scale: float = Field(1.0, description="what the merged vector is multiplied with before it is added to the start")


def fit(job: Fit, rule: Callable[[Pool], Rule]) -> dict[str, Any]:
    """Write start + scale x merged vector. `rule` makes the rule from the pool, so that a rule may depend on all blocks
    of a vector. Returns the metrics; `norm` is the Euclidean norm of the merged vector."""
    import torch

    from imprint.composition import writing
    from imprint.composition.vectors import Pool

    torch.set_num_threads(job.threads)
    pool = Pool(job.manifests, job.inputs.arms)
    merge = rule(pool)
    squared_norm = 0.0

    def compose(block: str) -> torch.Tensor:
        nonlocal squared_norm
        start = pool.start.read(block).to(torch.float32, copy=True).view(pool.blocks.shapes[block])
        merged = merge(block, [vector.delta(block) for vector in pool.vectors])
        squared_norm += float(merged.double().square().sum())
        return start.add_(merged, alpha=job.settings.scale)

    writing.write(job.out, pool, compose)
    return {"tokens": 0, "vectors": len(pool.vectors), "norm": round(squared_norm**0.5, 6)}


def threshold(pool: Pool, vector: Vector, keep: float) -> float:
    """The magnitude of the k-th largest element of a vector, where k is the share `keep` of all its elements (at least
    1).

    It is exact, and needs two passes without sorting: positive fp32 numbers have the order of their bits, read as
    integers. The first pass finds the upper 16 bits of the magnitude from a histogram. The second pass finds the lower
    16 bits among the elements with these upper bits."""
    import torch

    count = sum(torch.Size(shape).numel() for shape in pool.blocks.shapes.values())
    rank = max(1, round(keep * count))  # counted from the largest element of the histogram
    high = 0
    for shift, width in ((16, 1 << 15), (0, 1 << 16)):
        histogram = torch.zeros(width, dtype=torch.int64)
        for block in pool.blocks.shapes:
            bits = vector.delta(block).abs().view(torch.int32).view(-1)
            if shift == 0:
                bits = bits[(bits >> 16) == high]
            histogram += torch.bincount((bits >> shift) & (width - 1), minlength=width)
        at_least = histogram.flip(0).cumsum(0)  # how many elements each bin and those above it hold, from the top
        bins_above = int(torch.searchsorted(at_least, rank))
        rank -= int(at_least[bins_above - 1]) if bins_above else 0
        bits_found = width - 1 - bins_above
        high = bits_found if shift else (high << 16) | bits_found
    return float(torch.tensor(high, dtype=torch.int32).view(torch.float32))
