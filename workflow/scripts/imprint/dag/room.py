"""What the fits and engines of an experiment need on a GPU, and whether its fits can run on the GPUs that they have: on
so many, and in so much memory.

A profile says with the resource `gpu_memory_gb` how much memory a GPU has; an arm whose jobs run elsewhere says it for
itself. Without it nothing is refused. The size of a model is known once its folder is there: after fetching, or before
if the model is a `path`. What is not known when a run is planned is checked when the job begins (training/launch.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from imprint.config import graph
from imprint.config.amounts import NODES
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.dag.jobs.fits import Fitted, Train
from imprint.runtime import gpu_memory, model_sizes
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.model_sizes import Model
from imprint.training import sharing
from imprint.training.nodes import refusal

NAMED = 6
"""The most arms that a line names."""
UNKNOWN = "not known before the model is fetched"


def _known(experiment: Experiment) -> Callable[[str], Model | None]:
    """Arm -> the sizes of its root model, as fetched, or where its `path` leads; None where it is not there yet. Each
    model is looked at once."""

    @cache
    def of_model(name: str) -> Model | None:
        manifest = Path(experiment.path("fetch_model", "manifest", model=experiment.model_key(name)))
        path = experiment.config.models[name].path
        if manifest.is_file():
            return model_sizes.model(manifest.parent)
        return model_sizes.model(Path(path).expanduser()) if path else None

    return lambda arm: of_model(graph.root_model(experiment.config, arm))


def guard(workflow: Any, jobs: Train) -> None:
    """Let a fit that is not made yet, and that cannot run on its GPUs, end the process with one message. Call this
    after the rules are defined, in the process that plans. Each rule of a fit gets one more function of its inputs,
    which gives no file: Snakemake calls it for the fits that its targets need, before the first job."""
    sizes = _known(jobs.experiment)
    for rule in workflow.rules:
        if rule.name.startswith("train_"):
            rule.set_input(room=_guarding(workflow, rule, jobs, sizes))


def _guarding(
    workflow: Any, rule: Any, jobs: Train, sizes: Callable[[str], Model | None]
) -> Callable[[Any], list[str]]:
    experiment = jobs.experiment

    def amount(name: str, wildcards: Any) -> int:
        if name not in rule.resources:
            return 0
        resource = rule.resources[name]
        found = resource.evaluate(wildcards, input=[], attempt=1, rulename=rule.name, async_run=None, threads=1).value
        return found if isinstance(found, int) else 0

    def check(wildcards: Any) -> list[str]:
        gb, gpus, nodes = (amount(name, wildcards) for name in ("gpu_memory_gb", "gpu", NODES))
        nodes = max(1, nodes)
        size = max(gpus, nodes)
        made = Path(experiment.fitted(wildcards.arm, int(wildcards.seed))).is_file()
        if (size > 1 or (gb and gpus)) and not made:
            spec = jobs.spec(wildcards)
            try:
                if nodes > 1 and workflow.local_exec and not workflow.dryrun:
                    raise ImprintError(refusal(spec.arm, nodes))
                sharing.check(spec.arm, spec.method, size, nodes)
                if gb and gpus and experiment.config.engine.device != "cpu":
                    gpu_memory.check(spec.arm, spec.method, sizes(spec.arm), spec.dtype, gb, size, nodes)
            except ImprintError as error:
                sys.exit(shown(f"imprint: {error}"))  # as in `start.load_config`
        return []

    return check


def lines(experiment: Experiment) -> Iterator[str]:
    """What each fit and each engine needs on a GPU. Arms that need the same share a line."""
    sizes, arms = _known(experiment), dict[tuple[str, str], list[str]]()
    for what, arm, need in (*_fits(experiment, sizes), *_engines(experiment, sizes)):
        arms.setdefault((what, need), []).append(arm)
    if arms:
        yield (
            "Memory on a GPU, in GB: what is there in any case, to what is enough for rows of full length and prompts "
            f"of {gpu_memory.PROMPT} tokens:"
        )
    for (what, need), names in arms.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"  {what} {', '.join(names[:NAMED])}{more}: {need}"


def _fits(experiment: Experiment, sizes: Callable[[str], Model | None]) -> Iterator[tuple[str, str, str]]:
    """("fit", arm, what it needs). The profile's resources are not known here, so the GPUs are those that the arm names
    itself."""
    train = Train(experiment)
    for arm, seed in dict(experiment.fits).items():
        spec = train.spec(Fitted(arm, seed))
        resources = experiment.config.arms[arm].resources
        gpus = resources.get("gpu")
        size = max(1, gpus if isinstance(gpus, int) else 1) * int(resources.get(NODES, 1))
        need = gpu_memory.fit(sizes(arm), spec.method, spec.dtype, size)
        unknown = f"not reckoned for {spec.method.name}" if sizes(arm) else UNKNOWN
        yield "fit" if size == 1 else f"fit on {size} GPUs, each,", arm, _words(need) if need else unknown


def _engines(experiment: Experiment, sizes: Callable[[str], Model | None]) -> Iterator[tuple[str, str, str]]:
    """("answers", arm that is asked, judges or teaches, what its engine needs)."""
    config, sequences = experiment.config, experiment.config.engine.batch_size
    longest = max((ev.max_new_tokens for ev in config.evals.values()), default=0)
    asking = [jobs for jobs in all_jobs(experiment).values() if jobs.stage.runs_model and jobs.name != "train"]
    for arm in dict.fromkeys(jobs.arm(job) for jobs in asking for job in jobs.jobs()):
        engine, known, ranks = graph.engine_of(config, arm), sizes(arm), 1
        gpus = config.arms[arm].resources.get("gpu")
        tokens = max((config.evals[ev].max_new_tokens for ev in graph.evals_of(config, arm)), default=longest)
        if engine != "transformers":
            need = f"not reckoned for the engine {engine}"
        elif known is None:
            need = UNKNOWN
        else:
            hooked = config.arms[arm].apply.hooks
            ranks = 1 if hooked or not isinstance(gpus, int) else model_sizes.most_ranks(known.groups, gpus)
            reckoned = gpu_memory.of_engine(known, config.engine.dtype, sequences, tokens, ranks)
            need = f"{_words(reckoned)} ({sequences} sequences of {tokens:,} tokens)"
        yield "answers" if ranks == 1 else f"answers on {ranks} GPUs, each,", arm, need


def _words(need: gpu_memory.Need) -> str:
    return f"{need.range}: {need.exact}{'; at most: ' if need.bounds else ''}{need.bounds}"
