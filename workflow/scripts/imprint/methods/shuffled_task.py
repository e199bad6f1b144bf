"""The control of a composed arm: its learned coefficients on the wrong task vectors, each vector getting those of the
next one in the list. If it does as well, the coefficients know depth and kind of module but nothing of the tasks.

fit: {method: shuffled_task, of: composed, vectors: [self_prompt, ppe_plan]}
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from imprint import learning, tables
from imprint.errors import ImprintError
from imprint.methods import Fit, Inputs


class Settings(learning.Vectors):
    vectors: list[str] = Field(min_length=2, description="the vectors of the composed arm, in its order")
    of: str = Field(description="the arm whose coefficients are taken")


def inputs(settings: Settings) -> Inputs:
    """The composed arm, and the arms behind the vectors."""
    return Inputs(arms=(*settings.vectors, settings.of))


def fit(job: Fit) -> dict[str, Any]:
    """Merge with the coefficients of the next vector."""
    import torch

    from imprint.composition import Composition
    from imprint.vectors import Pool

    s: Settings = job.settings
    torch.set_num_threads(job.threads)
    file = job.arms[s.of][-1].with_name("coefficients.parquet")
    if not file.is_file():
        raise ImprintError(f"arm '{job.arm}': '{s.of}' has no coefficients; write an arm fitted by atlas for `of`")
    rows = tables.read(file, "coefficients").to_pylist()
    found = {(row["vector"], row["block"], row["part"]): row["value"] for row in rows}
    if {row["vector"] for row in rows} != set(s.vectors):
        known = ", ".join(dict.fromkeys(row["vector"] for row in rows))
        raise ImprintError(f"arm '{job.arm}': '{s.of}' was composed of {known}; write `vectors: [{known}]`")
    if max(row["part"] for row in rows) > 0:
        raise ImprintError(f"arm '{job.arm}': '{s.of}' has partitions; take an arm with `partitions: 1`")
    pool = Pool(job.manifests, {name: job.arms[name] for name in s.vectors})
    made = Composition(None, pool)
    with torch.no_grad():
        for i in range(len(s.vectors)):
            other = s.vectors[(i + 1) % len(s.vectors)]
            for block, group in made.group.items():
                made.values[i, group] = found.get((other, block, 0), 0.0)
    learning.write(job.out, made, job.arm, job.seed)
    return {"kind": "full", "metrics": {"tokens": 0}}
