"""What the arms and evals of a config are, for the tables `arms` and `evals` of the database."""

from __future__ import annotations

from imprint.config import graph
from imprint.config.schema import Config
from imprint.dag import report_facts
from imprint.runtime.identity import canonical
from imprint.runtime.plugins import Strict
from imprint.tables import database


def spec(config: Config) -> database.Spec:
    """The database's spec, in the order of the config."""
    return database.Spec(
        arms=[_arm(config, name) for name in config.arms], evals=[_eval(config, name) for name in config.evals]
    )


def _arm(config: Config, name: str) -> database.Arm:
    arm = config.arms[name]
    return database.Arm(
        arm=name,
        what=report_facts.words(config, name),
        parent=arm.parent,
        model=None if arm.runs else graph.root_model(config, name),
        method=arm.fit.method if arm.fit else None,
        fit=_json(arm.fit) if arm.fit else None,
        apply=_json(arm.apply),
        runs=_json(arm.runs) if arm.runs else None,
        control=arm.control,
        transductive=bool(graph.transductive(config)[name]),
    )


def _eval(config: Config, name: str) -> database.Eval:
    ev = config.evals[name]
    return database.Eval(
        eval=name,
        dataset=ev.dataset,
        responses=graph.source(config, name),
        score=ev.score.name if ev.score else "",
        asks=ev.asks,
        primary_metric=ev.primary if ev.score else "",
        direction=ev.metrics[ev.primary] if ev.score else 0,
        retention=ev.retention,
        settings=_json(ev),
    )


def _json(part: Strict) -> str:
    """A part of the config as JSON text, with all settings."""
    return canonical(part.model_dump(mode="json", by_alias=True))
