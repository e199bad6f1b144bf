"""Runs of the generate job on a pico model, and the plan of a whole config: what the tests of plug-ins share that take
part when an arm is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imprint.config import loading
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import Jobs, all_jobs
from imprint.policies import generation, policy
from imprint.runtime import parquet
from imprint.runtime.plugins import Plug
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named

Rows = list[dict[str, Any]]
QUESTIONS = ["Hello", "What is the sum of two and two?", "x", "Write a poem of the sea", "Why " * 40, "You are"]
"""Of unequal length: in a batch of four, most are padded."""


def plug(name: str, **settings: Any) -> Plug:
    return Plug(name=name, settings=settings)


def dataset(path: Path, questions: Sequence[str | list[dict[str, str]]] = QUESTIONS) -> Path:
    """A dataset of questions (user turns, or whole dialogues) with three options each."""
    rows = [
        {
            "messages": [{"role": "user", "content": one}] if isinstance(one, str) else one,
            "reference": {"options": ["yes", "no", "perhaps the sea"]},
        }
        for one in questions
    ]
    dataset_rows.write(path, path.stem, rows, "0" * 64)
    return path


def run(
    folder: Path,
    manifests: list[Path],
    data: Path,
    *,
    arm: str = "a1",
    ev: str = "e1",
    seed: int = 0,
    ask: str = "generate",
    samples: int = 1,
    temperature: float = 0.0,
    inputs: Named | None = None,
    datasets: Sequence[Path] = (),
    runs: Sequence[Path] = (),
    **asked: Any,
) -> tuple[Rows, dict[str, str]]:
    """The generate job of an arm, with the plug-ins `asked`: its generations without the seconds, and its prompts by
    sha256. The generations lie where `path` says."""
    out = path(folder, arm, ev, seed)
    how = {"engine": "transformers", "dtype": "float32", "batch_size": 4, **asked}
    spec = generation.Spec(
        arm=arm, seed=seed, eval=ev, ask=ask, policy=policy.Spec(**how), environment=None, inputs=inputs or Named(),
        samples=samples, temperature=temperature, top_p=1.0, max_new_tokens=8 if ask == "generate" else 0, limit=None,
    )  # fmt: skip
    prompts = folder / "prompts" / f"{arm}.{ev}.{seed}.parquet"
    generation.run(
        manifests=manifests, dataset=data, datasets=list(datasets), runs=list(runs), spec=spec, out=out,
        prompts=prompts, code="{}", threads=1, device="cpu",
    )  # fmt: skip
    rows = parquet.read(out, "generations").drop_columns(["seconds"]).to_pylist()
    return rows, {row["prompt_sha256"]: row["prompt"] for row in parquet.read(prompts, "prompts").to_pylist()}


def path(folder: Path, arm: str = "a1", ev: str = "e1", seed: int = 0) -> Path:
    """Where the generations of a run lie."""
    return folder / "generations" / arm / f"seed{seed}" / f"{ev}.parquet"


def plan(raw: dict[str, Any]) -> dict[str, Jobs]:
    """Load a config, and plan every job of it; gives the jobs by stage."""
    stages: dict[str, Jobs] = all_jobs(Experiment(loading.parse(raw)))
    for jobs in stages.values():
        for job in jobs.jobs():
            jobs.inputs(job), jobs.params(job), jobs.code(job)
    return stages
