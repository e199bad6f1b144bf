"""aTLAS without labels (arXiv 2407.02880, test-time adaptation): coefficients that make the model sure of one of a
question's options. The rows may be those of an eval, so arms of this method are marked transductive.

`pseudo_labels` trains towards the likeliest option if its probability is above a threshold. That is UFM's rule (paper
App. E) without its views of an image and its trusted set, which have no counterpart for text.

fit: {method: atlas_adaptation, vectors: [self_prompt, instruct], data: household}
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
    objective: Literal["entropy", "pseudo_labels"] = Field(
        "entropy", description="entropy over the options, or cross-entropy with the likeliest one"
    )
    threshold: float = Field(
        0.9, ge=0, lt=1, description="probability from which a pseudo-label counts (where UFM's, paper App. E, begins)"
    )
    learning_rate: float = Field(
        1e-2,
        gt=0,
        description="peak learning rate of AdamW (UFM in the published code takes 1e-3 over about ten times as many "
        "steps, so that coefficients reach as far)",
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
    threshold = s.threshold if s.objective == "pseudo_labels" else None
    objective = option_entropy.objective(job, model, tokenizer, threshold)
    composition = Composition(model, pool, s.granularity, s.partitions, job.seed)
    return learning.learn(job, composition, objective)
