"""aTLAS for unlearning (arXiv 2407.02880, task negation): coefficients that make a model worse on one dataset, the
target, and keep it as good on another, the control. The paper's loss is the control's cross-entropy less the target's,
which has no lower bound. So here a target token counts only until it is as unlikely as a blind guess. Learning stops at
the first check that costs too much control accuracy, and takes the check with the lowest target accuracy before it, as
the published code does after each epoch. A result needs both numbers, the target's and the control's.

fit: {method: atlas_negation, vectors: [instruct], data: dialogues, control: outlines}
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from imprint.composition import learning
from imprint.composition.settings import Learned, Rows, holds, reads, shared
from imprint.methods import Fit
from imprint.runtime.plugins import Inputs

__all__ = ["Settings", "fit", "holds", "inputs", "shared"]


class Settings(Learned):
    data: Rows = Field(description="dataset of dialogues to be unlearned, or `{DATASET: CONTEXT}`")
    control: Rows = Field(description="dataset of dialogues to be kept, written as `data`")
    bound: float | None = Field(
        None, gt=0, description="cross-entropy (nats) above which a target token counts no more; null: of a blind guess"
    )
    keep: float = Field(
        0.95, gt=0, le=1, description="share of the start's token accuracy on the control that must be left (published)"
    )
    learning_rate: float = Field(
        5e-3, gt=0, description="peak learning rate of AdamW (the median of the paper's eight, Table 6)"
    )
    schedule: Literal["cosine", "constant"] = Field(
        "constant", description="over the steps, no warm-up (paper Table 6)"
    )
    batch_size: int = Field(64, ge=1, description="rows a step of each, target and control (published code)")
    steps: int = Field(
        150,
        ge=1,
        description="updates; at the default rate a coefficient may reach 0.75, and the published ones reach about 0.6 "
        "below 0 (the paper counts epochs over sets of thousands of images)",
    )


def inputs(settings: Settings) -> Inputs:
    """Both datasets, and the arms behind the vectors."""
    return reads(settings, [settings.data, settings.control])


def fit(job: Fit) -> dict[str, Any]:
    """Learn the coefficients."""
    from imprint.composition.composing import Composition
    from imprint.composition.objectives import negation
    from imprint.composition.vectors import Pool

    s = job.settings
    pool = Pool.of(job.manifests, s.vectors, job.inputs.arms)
    model, tokenizer = learning.load(job)
    objective = negation(job, model, tokenizer)
    composition = Composition(model, pool, s.granularity, s.partitions, job.seed, ranks=job.ranks)
    return learning.learn(job, composition, objective)
