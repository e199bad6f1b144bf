"""aTLAS (Zhang et al., arXiv 2407.02880): task vectors composed with learned coefficients, one per vector and parameter
tensor, by cross-entropy on the assistant's tokens; merged to ordinary weights.

The fit starts from the parent's weights with all coefficients zero. With one dataset it is the paper's few-shot
setting, with several their losses are summed (addition; the paper then takes a learning rate of 1e-3, constant, 20
epochs of batches of 16). The paper is about images; for language models there are no published results.

fit: {method: atlas, vectors: [self_prompt, ppe_plan], data: dialogues, batch_size: 8, epochs: 1}
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from imprint import learning
from imprint.methods import Fit, Inputs


class Settings(learning.Passes):
    data: str | list[str] = Field(description="dataset of dialogues with assistant turns, or several")


def inputs(settings: Settings) -> Inputs:
    """The datasets, and the arms behind the vectors."""
    return learning.inputs(settings, *learning.listed(settings.data))


def fit(job: Fit, random: bool = False) -> dict[str, Any]:
    """Learn the coefficients; `random` puts random vectors in the arms' place."""
    from imprint.composition import Composition
    from imprint.objectives import supervised
    from imprint.vectors import Pool

    pool = Pool(job.manifests, job.arms, job.seed if random else None)
    model, tokenizer = learning.load(job)
    made = Composition(model, pool, job.settings.granularity, job.settings.partitions, job.seed)
    return learning.learn(job, made, supervised(job, model, tokenizer, learning.listed(job.settings.data)))
