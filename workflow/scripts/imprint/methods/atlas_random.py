"""The control of aTLAS (arXiv 2407.02880): the same learner over random vectors instead of the arms'. A random vector's
blocks are Gaussian, with the mean and standard deviation of the root model's blocks, as in the paper. Such a vector is
hundreds of times longer than a task vector, so that the control mostly measures damage. `match: vectors` draws blocks
with mean 0 that are as long as the arms' (ours). The number of coefficients alone explains what this control gains.

fit: {method: atlas_random, vectors: [self_prompt, ppe_plan], data: composing, batch_size: 8, match: vectors}
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from imprint.methods import Fit, atlas
from imprint.methods.atlas import holds, inputs, shared

__all__ = ["Settings", "fit", "holds", "inputs", "shared"]


class Settings(atlas.Settings):
    match: Literal["weights", "vectors"] = Field(
        "weights",
        description="what a random block resembles: the root's block in mean and standard deviation (published), or "
        "the arm's in its norm",
    )


def fit(job: Fit) -> dict[str, Any]:
    """Learn the coefficients of random vectors."""
    from imprint.composition.vectors import Random

    return atlas.learn(job, Random(job.seed, job.settings.match == "vectors"))
