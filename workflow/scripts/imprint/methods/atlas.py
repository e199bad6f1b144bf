"""aTLAS (Zhang et al., arXiv 2407.02880): task vectors composed with learned coefficients, one for each vector and
parameter tensor. Cross-entropy on the assistant's tokens is the loss. The result is merged to ordinary weights.

The fit starts from the parent's weights with all coefficients zero. One dataset is the paper's few-shot setting. The
losses of several datasets are summed (task addition, for which the paper takes a constant learning rate of 1e-3 and 20
epochs of batches of 16). The paper is about images; for language models there are no published results.

fit: {method: atlas, vectors: [self_prompt, ppe_plan], data: dialogues, batch_size: 8, epochs: 1}
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from imprint.composition import learning
from imprint.composition.settings import Passes, listed, reads
from imprint.methods import Fit
from imprint.runtime.plugins import Inputs


class Settings(Passes):
    data: str | list[str] = Field(description="dataset of dialogues with assistant turns, or several")


def inputs(settings: Settings) -> Inputs:
    """The datasets, and the arms behind the vectors."""
    return reads(settings, *listed(settings.data))


def fit(job: Fit) -> dict[str, Any]:
    """Learn the coefficients."""
    return learn(job, None)


def learn(job: Fit, random: int | None) -> dict[str, Any]:
    """Learn the coefficients of the arms' vectors, or of random vectors in their place if `random` is a seed."""
    from imprint.composition.composing import Composition
    from imprint.composition.objectives import supervised
    from imprint.composition.vectors import Pool

    pool = Pool(job.manifests, job.inputs.arms, random)
    model, tokenizer = learning.load(job)
    composition = Composition(model, pool, job.settings.granularity, job.settings.partitions, job.seed)
    return learning.learn(job, composition, supervised(job, model, tokenizer, listed(job.settings.data)))
