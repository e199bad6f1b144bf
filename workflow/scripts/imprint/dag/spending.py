"""What jobs have cost, by the table `costs` of an earlier run: for a question, and for a job that a run would do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from imprint.config import graph
from imprint.config.schema import Config
from imprint.dag.experiment import Experiment
from imprint.dag.plan import Planned
from imprint.runtime.stages import STAGES


@dataclass(frozen=True)
class Spending:
    """Seconds of job time, seconds times GPUs, and tokens."""

    seconds: float = 0.0
    gpu_seconds: float = 0.0
    tokens: float = 0.0

    def __mul__(self, factor: float) -> Spending:
        return Spending(self.seconds * factor, self.gpu_seconds * factor, self.tokens * factor)

    def __add__(self, other: Spending) -> Spending:
        return Spending(self.seconds + other.seconds, self.gpu_seconds + other.gpu_seconds, self.tokens + other.tokens)


NOTHING = Spending()


class Costs(NamedTuple):
    """What a question costs. `training`: all fits that it needs, for one seed. `fitted`: asking its fitted sides, for
    one example and one seed. `others`: asking its other sides, for one example."""

    training: Spending
    fitted: Spending
    others: Spending

    def of(self, clusters: int, seeds: int) -> Spending:
        """The costs of this many examples and seeds."""
        return self.training * seeds + (self.fitted * max(1, seeds) + self.others) * clusters


def costs(experiment: Experiment, plan: Planned, rows: list[dict[str, Any]]) -> Costs | None:
    """The costs of a question, from the rows of a pilot's table `costs`; None where the pilot lacks one of its jobs."""
    config, question, pilot = experiment.config, plan.question, plan.pilot
    if pilot is None or not pilot["n_pairs"]:
        return None
    sides = (question.arm, question.control)
    behind = graph.behind(graph.edges(config), {("run", side, question.eval) for side in sides})
    fits = [name for kind, name, *_ in behind if kind == "arm" and experiment.seeded(name) and config.arms[name].fit]
    source = graph.source(config, question.eval)
    jobs = [(arm, "train", None) for arm in fits] + [(side, "generate", source) for side in sides]
    means = {(arm, stage, ev): mean for arm, stage, ev in jobs if (mean := _mean(rows, stage, [arm], ev))}
    if len(means) < len(jobs):
        return None
    per_example = 1 / (pilot["n_pairs"] + pilot["n_missing"])
    asking = {side: means[side, "generate", source] * per_example for side in sides}
    return Costs(
        training=sum((means[arm, "train", None] for arm in fits), NOTHING),
        fitted=sum((asking[side] for side in sides if experiment.trained_by_seed(side)), NOTHING),
        others=sum((asking[side] for side in sides if not experiment.trained_by_seed(side)), NOTHING),
    )


def of_job(config: Config, rows: list[dict[str, Any]], stage: str, arm: str, ev: str | None) -> Spending | None:
    """What a job will cost, if it costs what it did: the mean over the seeds of the same arm, else over the other arms
    in `rows` that a job of the stage is like (the same method; the same eval). None where there is no such job. A job
    that runs no model costs nothing."""
    if not STAGES[stage].runs_model:
        return NOTHING
    return _mean(rows, stage, [arm], ev) or _mean(rows, stage, _like(config, stage, arm), ev)


def _like(config: Config, stage: str, arm: str) -> list[str]:
    """The other arms whose jobs of a stage may cost as much as that of `arm`."""
    fit = config.arms[arm].fit
    if stage != "train" or fit is None:
        return list(config.arms)
    return [name for name, other in config.arms.items() if other.fit and other.fit.method == fit.method]


def _mean(rows: list[dict[str, Any]], stage: str, arms: Iterable[str], ev: str | None) -> Spending | None:
    """The mean costs of a stage's jobs over seeds and arms; None where no job of this kind has costs."""
    jobs = [row for row in rows if (row["stage"], row["eval"]) == (stage, ev) and row["arm"] in arms and row["seconds"]]
    spent = [Spending(job["seconds"], job["gpu_seconds"] or 0.0, job["tokens"] or 0) for job in jobs]
    return sum(spent, NOTHING) * (1 / len(jobs)) if jobs else None
