"""Task arithmetic (Ilharco et al., arXiv 2212.04089): start + scale x the sum of the task vectors. All vectors have one
scale, either fixed or the one on a grid with the lowest loss on held-out rows. A negative scale unlearns a task.

fit: {method: task_arithmetic, vectors: [self_prompt, ppe_plan], scale: [0.25, 0.5, 0.75, 1.0], data: dialogues}
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from imprint.composition import learning
from imprint.composition.settings import Vectors, reads
from imprint.methods import Fit
from imprint.runtime import parquet
from imprint.runtime.plugins import Inputs

GRID = [round(0.05 * i, 2) for i in range(21)]


class Settings(Vectors):
    scale: float | list[float] = Field(
        GRID, description="a scale, or several of which the one with the lowest loss is taken (default as published)"
    )
    data: str | None = Field(None, description="dataset of dialogues with assistant turns that chooses the scale")
    rows_at_once: int = Field(8, ge=1, description="rows in one pass (ours, small for a CPU)")
    max_length: int = Field(192, ge=8, description="tokens a row; longer rows are cut at the end (ours)")

    @model_validator(mode="after")
    def _one_or_data(self) -> Settings:
        if isinstance(self.scale, list) and (self.data is None or not self.scale):
            raise ValueError("several scales need rows to choose by; write `data: DATASET`, or one `scale: 1.0`")
        if not isinstance(self.scale, list) and self.data is not None:
            raise ValueError("one scale leaves nothing to choose; leave `data` out, or write several scales")
        return self


def inputs(settings: Settings) -> Inputs:
    """The dataset, if a scale is chosen, and the arms behind the vectors."""
    return reads(settings, *([settings.data] if settings.data else []))


def fit(job: Fit) -> dict[str, Any]:
    """Merge. A grid's scales are first tried on all rows, and the first scale with the lowest loss is taken."""
    import torch

    from imprint.composition.composing import Composition
    from imprint.composition.vectors import Pool

    s: Settings = job.settings
    torch.set_num_threads(job.threads)
    pool = Pool(job.manifests, job.inputs.arms)
    curves: list[dict[str, Any]] = []
    losses: dict[float, float] = {}
    if isinstance(s.scale, list):
        from imprint.composition.objectives import mean_loss

        model, tokenizer = learning.load(job)
        composition = Composition(model, pool, "vector")
        for step, scale in enumerate(s.scale, 1):
            with torch.no_grad():
                composition.values.fill_(scale)
                composition.merge()
                losses[scale] = mean_loss(job, model, tokenizer, str(s.data))
            values = {"loss": losses[scale], "scale": scale}
            learning.check(job, values, step, len(s.scale))
            curves += learning.at_step(job, step, values)
        chosen = min(losses, key=losses.__getitem__)
    else:
        composition, chosen = Composition(None, pool, "vector"), s.scale
    with torch.no_grad():
        composition.values.fill_(chosen)
    learning.write(job.out, composition, job.arm, job.seed)
    parquet.write(job.out / "curves.parquet", "curves", curves)
    metrics: dict[str, Any] = {"tokens": 0, "scale": chosen}
    return metrics | ({"loss": losses[chosen]} if losses else {})
