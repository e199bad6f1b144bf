"""The questions of a config as the statistics take them, and the plan of their looks."""

from __future__ import annotations

from typing import Any

from imprint.config import graph
from imprint.config.evals import ASKING
from imprint.config.questions import Question
from imprint.config.schema import Config
from imprint.dag.experiment import Experiment
from imprint.runtime.identity import fingerprint
from imprint.statistics.summarize import AskedQuestion, Check, CurveCheck, Plan

LOOKS = "looks.json"
WHO_TAKES_IT = {"responses", "arms"}
"""Keys of an eval that change no response and no score."""


def questions(config: Config) -> list[AskedQuestion]:
    """The questions in the order of the config; a question with several evals stands once for each."""
    return [
        AskedQuestion(
            name=name,
            asks=question.asks,
            arm=question.arm,
            control=question.control,
            eval=ev,
            metric=question.metric or config.evals[ev].primary,
            kind=question.kind,
            margin=question.margin or 0.0,
            over=question.over,
            check=_check(config, question),
        )
        for name, question in config.questions.items()
        for ev in question.evals
    ]


def _check(config: Config, question: Question) -> Check | CurveCheck | None:
    check = question.check
    if check is None:
        return None
    arm = check.arm or question.arm
    if check.curve is not None:
        return CurveCheck(arm=arm, curve=check.curve, above=check.above, below=check.below)
    ev = str(check.eval)
    metric = check.metric or config.evals[ev].primary
    return Check(arm=arm, control=check.control or question.control, eval=ev, metric=metric)


def curves(config: Config) -> list[str]:
    """The arms whose training curves are checked."""
    checks = [question.check for question in questions(config)]
    return list(dict.fromkeys(check.arm for check in checks if isinstance(check, CurveCheck)))


def plan(experiment: Experiment) -> Plan:
    """How much data there will be at the last look, and where the history of looks is. Limited runs are looks at the
    same experiment, so they share the history of the full runs."""
    config = experiment.config
    return Plan(
        version=version(config),
        seeds=config.final_seeds or len(config.seeds),
        looks=f"{config.results.rstrip('/')}/{LOOKS}",
    )


def version(config: Config) -> str:
    """A hash of the questions, without their words, and of what the config says of everything that their answers are
    made from. Amounts do not count: seeds, the limit, and the number of rows of an eval."""
    asked = questions(config)
    evals = {question.eval: config.evals[question.eval] for question in asked}
    runs: set[graph.Node] = {
        ("run", side, question.eval) for question in asked for side in (question.arm, question.control)
    }
    for name, ev in evals.items():
        runs |= {("run", *opponent) for opponent in graph.of_scores(config, name).runs}
        runs |= {("arm", ev.judge)} if ev.judge else set()
    behind = graph.behind(graph.edges(config), set(runs))
    parts: list[Any] = [[question.model_dump(exclude={"asks"}) for question in asked]]
    parts += [(name, ev.model_dump(mode="json", exclude=WHO_TAKES_IT)) for name, ev in sorted(evals.items())]
    read = {node[2] for node in behind if node[0] == "run"} - set(evals)  # by fits, contexts or syntheses
    asking = set(ASKING) - WHO_TAKES_IT
    parts += [(name, config.evals[name].model_dump(mode="json", include=asking)) for name in sorted(read)]
    for kind, name in sorted(node for node in behind if node[0] != "run"):
        if kind == "arm":
            arm = config.arms[name].model_dump(mode="json", include={"model", "parent", "fit", "apply", "runs"})
            parts.append((name, {key: value for key, value in arm.items() if key != "runs" or value is not None}))
            continue
        dataset = config.datasets[name].model_dump(mode="json")
        if name in {ev.dataset for ev in evals.values()}:
            dataset["settings"].pop("n", None)
        parts.append((name, dataset))
    return fingerprint(parts)[:16]
