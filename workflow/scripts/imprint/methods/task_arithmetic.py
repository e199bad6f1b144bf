"""Task arithmetic (Ilharco et al., arXiv 2212.04089): start + scale x the sum of the task vectors. All vectors have one
scale, either fixed or the one on a grid with the lowest loss on rows that no vector was fitted to. A negative scale
unlearns a task.

fit: {method: task_arithmetic, vectors: [self_prompt, ppe_plan], data: composing}
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from imprint.composition import learning, merging
from imprint.composition.merging import draws, inputs
from imprint.methods import Fit

__all__ = ["Settings", "draws", "fit", "inputs"]

GRID = [round(0.05 * i, 2) for i in range(21)]


class Settings(merging.Scaled):
    scale: float | list[float] = Field(
        GRID,
        description="a scale, or several of which the first with the lowest loss on `data` is taken (default as "
        "published)",
    )


def fit(job: Fit) -> dict[str, Any]:
    """Merge. Adapters are never multiplied out, unlike in other merges."""
    import torch

    from imprint.composition.composing import Composition
    from imprint.composition.vectors import Pool

    torch.set_num_threads(job.threads)
    pool = Pool.of(job.manifests, job.settings.vectors, job.inputs.arms)
    composition = Composition(None, pool, "vector")

    def put(scale: float, model: Any) -> None:
        composition.values.fill_(scale)
        for block, parameter in model.named_parameters():
            if block in composition.group:
                composition.sum(block, parameter.data)

    scale, chosen = merging.choose(job, put)
    with torch.no_grad():
        composition.values.fill_(scale)
    learning.write(job.out, composition, job.arm, job.seed)
    return {"tokens": 0, **chosen}
