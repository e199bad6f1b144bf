"""AdaMerging as published (Yang et al., arXiv 2310.02575 and its code): a coefficient per vector and tensor between 0
and 1, from 0.3, by the entropy of predictions on unlabelled test rows, summed over datasets. Predictions are those
among a question's options, since a language model has no classes. Learners from labels are no equals of it: say so
beside it.

fit: {method: adamerging, vectors: [self_prompt, instruct], data: [household, general]}
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from imprint import learning
from imprint.methods import Fit, Inputs

TRANSDUCTIVE = True


class Settings(learning.Learned):
    data: str | list[str] = Field(
        description="dataset of questions with reference.options, or several; no label is read"
    )
    steps: int = Field(500, ge=1, description="steps (published)")
    start: float = Field(0.3, description="where every coefficient begins (published)")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam, betas 0.9 and 0.999 (published)")
    schedule: Literal["cosine", "constant"] = Field("constant", description="over the steps (published)")
    weight_decay: float = Field(0.0, ge=0, description="none (published)")
    max_grad_norm: float | None = Field(None, gt=0, description="no clipping (published)")
    batch_size: int = Field(16, ge=1, description="rows a step, of each dataset (published)")


def inputs(settings: Settings) -> Inputs:
    """The datasets, and the arms behind the vectors."""
    return learning.inputs(settings, *learning.listed(settings.data))


def fit(job: Fit) -> dict[str, Any]:
    """Learn the coefficients."""
    from imprint import option_entropy
    from imprint.composition import Composition
    from imprint.vectors import Pool

    s = job.settings
    pool = Pool(job.manifests, job.arms)
    model, tokenizer = learning.load(job)
    objective = option_entropy.objective(job, model, tokenizer, learning.listed(s.data), s.steps, None)
    made = Composition(model, pool, s.granularity, s.partitions, job.seed, start=s.start)
    return learning.learn(job, made, objective, clamp=(0.0, 1.0))
