"""Merging task vectors by a rule that looks at their elements, without any data: the frame that such methods share. A
block is multiplied out at a time, merged, and written; imports torch inside its functions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from imprint import learning, model_files
from imprint.methods import Fit

if TYPE_CHECKING:
    import torch

    from imprint.vectors import Pool, Vector

Rule = Callable[[str, "list[torch.Tensor]"], "torch.Tensor"]
"""Of a block's name and its task vectors (fp32), what is added to the start."""


class Scaled(learning.Vectors):
    """A merge that is multiplied with one number."""

    scale: float = Field(1.0, description="what the merged vector is multiplied with before it is added to the start")


def fit(job: Fit, rule: Callable[[Pool], Rule]) -> dict[str, Any]:
    """Write start + scale x rule(vectors); `rule` may first look at the whole pool."""
    import torch

    from imprint import tensor_files
    from imprint.vectors import Pool

    torch.set_num_threads(job.threads)
    pool = Pool(job.manifests, job.arms)
    merged, blocks = rule(pool), pool.blocks.shapes
    weights = pool.start.weights
    names = {pool.blocks.alias.get(name, name): name for name in weights.names}
    total = 0.0

    def read(block: str) -> torch.Tensor:
        nonlocal total
        if block not in blocks:
            return weights.read(names[block])
        start = pool.start.read(block).to(torch.float32, copy=True).view(blocks[block])
        added = merged(block, [vector.delta(block) for vector in pool.vectors])
        total += float(added.double().square().sum())
        return start.add_(added, alpha=job.settings.scale)

    shapes = []
    for block, name in names.items():
        raw = weights.read(name)
        shapes.append((block, tuple(raw.shape), torch.float32 if block in blocks else raw.dtype))
    shutil.rmtree(job.out / "weights", ignore_errors=True)  # of a fit of another kind
    (job.out / "weights").mkdir(parents=True)
    tensor_files.write(job.out / "weights" / model_files.WEIGHTS, shapes, read)
    return {"kind": "full", "metrics": {"tokens": 0, "vectors": len(pool.vectors), "norm": round(total**0.5, 6)}}


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
        found = width - 1 - place
        high = found if shift else (high << 16) | found
    return float(torch.tensor(high, dtype=torch.int32).view(torch.float32))
