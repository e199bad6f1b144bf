"""What a config asks of engines, and which of them can do it."""

from __future__ import annotations

from collections.abc import Iterator

from imprint.config import graph
from imprint.config.schema import Config
from imprint.runtime import plugins


def problems(config: Config) -> Iterator[str]:
    """Abilities that the config needs of an arm's engine, but that the engine lacks. All names must be defined."""
    for arm, ev in graph.runs_of(config):
        if not config.arms[arm].runs:
            for lack in _lacks(config, arm, config.evals[ev].asks):
                yield f"arms.{arm}: the eval '{ev}' cannot be asked: {lack}"
    for name, arm_spec in config.arms.items():
        if arm_spec.apply.hooks:
            yield from (f"arms.{name}.apply.hooks: {lack}" for lack in _lacks(config, name, "hooks"))
        if (decode := arm_spec.apply.decode) and plugins.load("decoders", decode.name).LIKELIHOODS:
            for lack in _lacks(config, name, "loglikelihood"):
                yield f"arms.{name}.apply.decode: '{decode.name}' asks how likely the draws are: {lack}"
        if arm_spec.fit:
            yield from (f"arms.{name}.fit: {lack}" for lack in _lacks(config, name, "weights"))
        if arm_spec.resources and not arm_spec.runs and config.models[graph.root_model(config, name)].openai:
            yield f"arms.{name}.resources: the arm's model is on a server, so its jobs need nothing; leave it out"
    for name, dataset in config.datasets.items():
        if dataset.teacher():
            yield from (f"datasets.{name}: {lack}" for lack in _lacks(config, str(dataset.teacher()), "generate"))
    for name, ev_spec in config.evals.items():
        if ev_spec.judge:
            yield from (f"evals.{name}.judge: {lack}" for lack in _lacks(config, ev_spec.judge, "generate"))
    for name in config.analyses:
        if asked := graph.asked_by(config, name):
            yield from (f"analyses.{name}: {lack}" for lack in _lacks(config, asked, "hooks"))
    yield from _without_files(config)


def _without_files(config: Config) -> Iterator[str]:
    """Parts of the config that read the weights of arms on servers, of which there are none. A teacher is asked and not
    read, and so is the arm that an analysis names to be asked."""
    for reader in graph.readers(config):
        asked = {_asked(config, node) for node in reader.nodes}
        for arm in reader.inputs.arms:
            if arm not in asked and config.models[graph.root_model(config, arm)].openai:
                for lack in _lacks(config, arm, "weights"):
                    yield f"{reader.where}: reads the weights of '{arm}': {lack}"


def _asked(config: Config, node: graph.Node) -> str | None:
    """The arm that is asked while a node is made, and not read; None where there is none."""
    kind, name, *_ = node
    if kind == "dataset":
        return config.datasets[name].teacher()
    return graph.asked_by(config, name) if kind == "analysis" else None


def _lacks(config: Config, arm: str, ability: str) -> Iterator[str]:
    """Why an arm's engine cannot do something; nothing where it can."""
    engine, model = graph.engine_of(config, arm), graph.root_model(config, arm)
    if ability in plugins.load("engines", engine).CAN:
        return
    if config.models[model].openai:
        yield f"the model '{model}' is on a server, which gives no {ability}; take a model with weights"
        return
    able = [name for name in plugins.names("engines") if ability in plugins.load("engines", name).CAN]
    others = ", ".join(able) or "(there is none yet)"
    yield f"the engine '{engine}' of model '{model}' has no {ability}; write an engine that has: {others}"
