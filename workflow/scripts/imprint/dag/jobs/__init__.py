"""The jobs of each stage: which jobs an experiment needs, what each job reads, its spec and its code.

A rule takes everything from the class of its stage: `input: unpack(stage["generate"].inputs)`. A spec says *what* a job
makes, and not where or how. It holds only what the job depends on, so an edit of one arm's learning rate reruns that
arm and what is built on it, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from imprint.config import graph
from imprint.config.sources import SERVED
from imprint.dag import code, scored_rows
from imprint.dag.experiment import Experiment
from imprint.runtime import stages
from imprint.runtime.identity import canonical
from imprint.runtime.plugins import Strict


class Jobs:
    """The jobs of one stage. A job is an object with the job's wildcards as attributes: snakemake's own wildcards, or a
    named tuple. A stage with a single job takes ()."""

    name: ClassVar[str]
    """The name of the stage in `runtime.stages`, of its rule and of its script."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.config = experiment, experiment.config
        self.stage = stages.STAGES[self.name]

    def jobs(self) -> Iterable[Any]:
        """Every job that the experiment needs."""
        return [()]

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        """What a job reads: name -> file or files."""
        raise NotImplementedError

    def spec(self, wildcards: Any) -> Strict:
        """What a job makes: the argument of `run` in the stage's module."""
        raise NotImplementedError

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        """(kind, name) of the plug-ins that a job loads by name, and whose code decides what the job makes."""
        return ()

    def params(self, wildcards: Any) -> str:
        """The rule's param `spec`: the spec as canonical JSON."""
        return canonical(self.spec(wildcards).model_dump(mode="json"))

    def code(self, wildcards: Any) -> str:
        """The rule's param `code`: hashes of the code that a job runs, and of the schemas of the tables that it writes,
        as canonical JSON."""
        tables = (*self.stage.outputs, *self.stage.beside)
        return code.code(self.name, tuple(sorted(set(self.plugins(wildcards)))), tables)

    def arm(self, wildcards: Any) -> str:
        """The arm whose weights a job loads. Only for stages that run a model."""
        return str(wildcards.arm)

    def on_server(self, wildcards: Any) -> bool:
        """Whether the model of a job runs on a server. Such a job has a rule of its own, which is local."""
        return self.stage.runs_model and graph.engine_of(self.config, self.arm(wildcards)) == SERVED

    def scores(self, wildcards: Any) -> str:
        """The scores that judge the rows of all datasets, as a resource, with spaces between: a job that makes rows or
        puts them to a model compares them with what the scores read. A score that is changed later makes nothing anew.
        The resource is the same for all jobs, since Slurm runs some of them in one group."""
        return " ".join(scored_rows.scores(self.config))

    @property
    def outputs(self) -> dict[str, str]:
        """Name of an output -> pattern of its path."""
        return {name: self._placed(pattern) for name, pattern in self.stage.outputs.items()}

    @property
    def log(self) -> str:
        """Pattern of the log."""
        return self._placed(stages.log(self.stage))

    def files(self) -> list[str]:
        """The paths of all outputs of all jobs."""
        return [file for job in self.jobs() for file in self.files_of(job)]

    def files_of(self, job: Any) -> list[str]:
        """The paths of all outputs of one job."""
        return [pattern.format(**_wildcards(job)) for pattern in self.outputs.values()]

    def logs(self) -> list[str]:
        """The paths of the logs of all jobs."""
        return [self.log.format(**_wildcards(job)) for job in self.jobs()]

    def _placed(self, pattern: str) -> str:
        return pattern if pattern.startswith("resources/") else f"{self.experiment.results}/{pattern}"


def _wildcards(job: Any) -> dict[str, Any]:
    return job._asdict() if job else {}


def all_jobs(experiment: Experiment) -> dict[str, Any]:
    """Stage -> its jobs, in the order of the table of stages."""
    from imprint.dag.jobs import data, fits, results, runs

    classes = {stage.name: stage for module in (data, fits, runs, results) for stage in module.JOBS}
    return {name: classes[name](experiment) for name in stages.STAGES}
