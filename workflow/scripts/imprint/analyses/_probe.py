"""The probe job: writes the rows of one analysis that asks an arm or records its activations, all seeds."""

from __future__ import annotations

from pathlib import Path

from imprint.analyses import _job
from imprint.policies import policy
from imprint.tables.inputs import Read


class Spec(_job.Spec):
    """What the job makes, and how its arm is asked."""

    policy: policy.Spec


def run(
    *,
    spec: Spec,
    datasets: list[Path],
    runs: list[Path],
    manifests: list[Path],
    out: Path,
    threads: int,
    device: str,
) -> None:
    """Write the rows of one analysis. `manifests` has the chain of the arm's weights at the first seed, then that at
    the next. A killed job begins again."""
    import torch

    torch.set_num_threads(threads)
    length = len(manifests) // len(spec.inputs)

    def start(number: int, inputs: Read) -> policy.Policy:
        return policy.start(spec.policy, manifests[number * length : (number + 1) * length], device, inputs)

    _job.write(spec, datasets, runs, out, start)
