"""The control of aTLAS (arXiv 2407.02880): the same learner over random vectors instead of the arms'. A random vector's
blocks are Gaussian, with the mean and standard deviation of the root model's blocks. The number of coefficients alone
explains what this control gains.

fit: {method: atlas_random, vectors: [self_prompt, ppe_plan], data: dialogues, batch_size: 8, epochs: 1}
"""

from __future__ import annotations

from typing import Any

from imprint.methods import Fit, atlas
from imprint.methods.atlas import Settings, inputs

__all__ = ["Settings", "fit", "inputs"]


def fit(job: Fit) -> dict[str, Any]:
    """Learn the coefficients of random vectors."""
    return atlas.learn(job, job.seed)
