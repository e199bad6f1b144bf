"""AdaMerging as published (Yang et al., arXiv 2310.02575 and its code): a coefficient for each vector and tensor, from
0.3 and clamped between 0 and 1 where it is used. They minimise the entropy of predictions on unlabelled test rows,
summed over datasets. A language model has no classes, so it predicts one of a question's options. Next to methods that
learn from labels, a report must name this difference.

fit: {method: adamerging, vectors: [self_prompt, instruct], data: [household, general]}
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from imprint.composition import learning
from imprint.composition.settings import Data, Learned, reads
from imprint.methods import Fit
from imprint.runtime.plugins import Inputs

TRANSDUCTIVE = True


class Settings(Learned):
    data: Data = Field(
        description="dataset of questions with reference.options, or several, or each with its contexts: "
        "`{DATASET: CONTEXT}`; no label is read"
    )
    steps: int = Field(500, ge=1, description="steps (published)")
    start: float = Field(0.3, description="where every coefficient begins (published)")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam, betas 0.9 and 0.999 (published)")
    schedule: Literal["cosine", "constant"] = Field("constant", description="over the steps (published)")
    weight_decay: float = Field(0.0, ge=0, description="none (published)")
    max_grad_norm: float | None = Field(None, gt=0, description="no clipping (published)")
    batch_size: int = Field(
        32, ge=1, description="rows a step, of each dataset (published: two batches of 16; their mean is the same)"
    )


def inputs(settings: Settings) -> Inputs:
    """The datasets, and the arms behind the vectors."""
    return reads(settings, settings.data)


def fit(job: Fit) -> dict[str, Any]:
    """Learn the coefficients."""
    from imprint.composition import option_entropy
    from imprint.composition.composing import Composition
    from imprint.composition.vectors import Pool

    s = job.settings
    pool = Pool.of(job.manifests, s.vectors, job.inputs.arms)
    model, tokenizer = learning.load(job)
    objective = option_entropy.objective(job, model, tokenizer, None)
    composition = Composition(model, pool, s.granularity, s.partitions, job.seed, s.start, bounds=(0.0, 1.0))
    return learning.learn(job, composition, objective)
