"""The control of a composed arm: its learned coefficients on the wrong task vectors. Each vector gets the coefficients
of the next vector in the list. If this arm does as well, the coefficients depend on the depth and kind of a module but
not on the tasks.

fit: {method: shuffled_task, of: composed, vectors: [self_prompt, ppe_plan]}
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from imprint.composition import learning
from imprint.composition.settings import VectorRef, Vectors, reads
from imprint.methods import Fit
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs


class Settings(Vectors):
    vectors: list[VectorRef] = Field(min_length=2, description="the vectors of the composed arm, in its order")
    of: str = Field(description="the arm whose coefficients are taken")


def inputs(settings: Settings) -> Inputs:
    """The composed arm, and the arms behind the vectors."""
    return reads(settings) + Inputs(arms=(settings.of,))


def fit(job: Fit) -> dict[str, Any]:
    """Merge each vector with the coefficients of the next one. Raises ImprintError if the composed arm has none, has
    other vectors, or has partitions."""
    import torch

    from imprint.composition.composing import Composition
    from imprint.composition.vectors import Pool

    s: Settings = job.settings
    torch.set_num_threads(job.threads)
    file = job.inputs.arms[s.of][-1].with_name("coefficients.parquet")
    if not file.is_file():
        raise ImprintError(f"arm '{job.arm}': '{s.of}' has no coefficients; write an arm fitted by atlas for `of`")
    rows = parquet.read(file, "coefficients").to_pylist()
    coefficients = {(row["vector"], row["block"], row["part"]): row["value"] for row in rows}
    vectors = [vector.name for vector in s.vectors]
    if {row["vector"] for row in rows} != set(vectors):
        names = ", ".join(dict.fromkeys(row["vector"] for row in rows))
        raise ImprintError(f"arm '{job.arm}': '{s.of}' was composed of {names}; write `vectors: [{names}]`")
    if max(row["part"] for row in rows) > 0:
        raise ImprintError(f"arm '{job.arm}': '{s.of}' has partitions; take an arm with `partitions: 1`")
    pool = Pool.of(job.manifests, s.vectors, job.inputs.arms)
    composition = Composition(None, pool)
    with torch.no_grad():
        for i in range(len(vectors)):
            following = vectors[(i + 1) % len(vectors)]
            for block, group in composition.group.items():
                composition.values[i, group] = coefficients.get((following, block, 0), 0.0)
    learning.write(job.out, composition, job.arm, job.seed)
    return {"tokens": 0}
