"""aTLAS (Zhang et al., arXiv 2407.02880): task vectors composed with learned coefficients, one for each vector and
parameter tensor. Cross-entropy on the assistant's tokens is the loss. The result is merged to ordinary weights.

The fit starts from the parent's weights with all coefficients zero. One dataset is the paper's few-shot setting. The
losses of several datasets are summed (task addition, for which the paper takes a constant learning rate of 1e-3 and 20
epochs of batches of 16). Each dataset may have contexts of its own. With `validation`, the coefficients of the step
with the lowest loss on these rows are taken, the start among them; the published code does so by accuracy, epoch by
epoch. Rows that the vectors' arms were fitted to tell little about coefficients, so take other rows (`synth: split`).
The paper is about images; for language models there are no published results.

fit:
  method: atlas
  vectors: [self_prompt, {of: ppe_plan, against: plan_form}]
  data: {composing: self_role, outlines: {prior_prompt: plan}}
  batch_size: 8
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from imprint.composition import learning
from imprint.composition.settings import Data, Learned, holds, reads, shared
from imprint.methods import Fit
from imprint.runtime.plugins import Inputs

if TYPE_CHECKING:
    from imprint.composition.vectors import Random

__all__ = ["Settings", "fit", "holds", "inputs", "learn", "shared"]


class Settings(Learned):
    data: Data = Field(
        description="dataset of dialogues with assistant turns, or several, or each with its contexts: "
        "`{DATASET: CONTEXT}`"
    )
    validation: Data | None = Field(
        None, description="rows by whose loss the best step is chosen, written as `data`; null takes the last step"
    )


def inputs(settings: Settings) -> Inputs:
    """The datasets, and the arms behind the vectors."""
    return reads(settings, settings.data, settings.validation or [])


def fit(job: Fit) -> dict[str, Any]:
    """Learn the coefficients."""
    return learn(job, None)


def learn(job: Fit, random: Random | None) -> dict[str, Any]:
    """Learn the coefficients of the vectors, or of random vectors in their place."""
    from imprint.composition.composing import Composition
    from imprint.composition.objectives import supervised
    from imprint.composition.vectors import Pool

    s = job.settings
    pool = Pool.of(job.manifests, s.vectors, job.inputs.arms, random)
    model, tokenizer = learning.load(job)
    composition = Composition(model, pool, s.granularity, s.partitions, job.seed, ranks=job.ranks)
    return learning.learn(job, composition, supervised(job, model, tokenizer))
