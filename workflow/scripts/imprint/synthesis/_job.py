"""The synthesis job: makes a dataset from what a synthesiser reads, with a teacher's help."""

from __future__ import annotations

from pathlib import Path

from imprint.policies import policy, teacher
from imprint.runtime import work
from imprint.synthesis import _rearrange


class Spec(_rearrange.Spec):
    """What the job makes, and how its teacher is asked."""

    teacher: policy.Spec


def run(
    *,
    spec: Spec,
    datasets: list[Path],
    runs: list[Path],
    manifests: list[Path],
    code: str,
    scores: list[str],
    out: Path,
    attempts: Path,
    device: str,
    gpus: int = 1,
) -> None:
    """Make one dataset. `manifests` is the teacher's chain. A work folder keeps the teacher's answers as shards, so
    that a killed job repeats no finished batch. It also keeps them if the synthesiser stops for a low yield."""
    ranks = policy.ranks(spec.teacher, manifests, gpus)
    weights = [*manifests, *spec.inputs.manifests()]
    identity = work.identity(spec, [*datasets, *runs], weights, code, *policy.where(spec.teacher, device, ranks))
    with work.folder(out.with_suffix(".work"), identity) as scratch:
        ask = teacher.asker(spec.teacher, manifests, scratch, device, ranks)
        _rearrange.write(spec, datasets, runs, manifests, ask, scores, out, attempts)
        work.remove(scratch)
