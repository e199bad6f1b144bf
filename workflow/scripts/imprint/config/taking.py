"""Which arm takes which eval: what arms and evals say of each other that cannot hold together. Unknown names are found
by `checks`."""

from __future__ import annotations

from collections.abc import Iterator

from imprint.config import graph
from imprint.config.schema import Config


def problems(config: Config) -> Iterator[str]:
    """Messages, each with its place in the YAML and what to write instead."""
    for name in config.arms:
        yield from _chosen(config, name)
    for name, ev in config.evals.items():
        if ev.responses is not None:
            yield from _shared(config, name, ev.responses)
        else:
            yield from _named(config, name)
            yield from _unread(config, name)


def _chosen(config: Config, arm: str) -> Iterator[str]:
    """Evals that an arm chooses and cannot have."""
    where = f"arms.{arm}.runs.evals" if config.arms[arm].runs else f"arms.{arm}.evals"
    for name in graph.chosen_by(config, arm) or []:
        if (ev := config.evals.get(name)) is None:
            continue
        if ev.responses is not None:
            yield (
                f"{where}: '{name}' scores the responses to '{ev.responses}', so an arm takes both or neither; write "
                f"'{ev.responses}' alone"
            )
        elif ev.arms is not None and arm not in ev.arms:
            yield f"{where}: `evals.{name}.arms` does not name '{arm}'; add it there, or leave '{name}' out here"


def _named(config: Config, name: str) -> Iterator[str]:
    """Arms that an eval names, and that choose other evals."""
    for arm in config.evals[name].arms or []:
        chosen = graph.chosen_by(config, arm) if arm in config.arms else None
        if chosen is not None and name not in chosen:
            yield f"evals.{name}.arms: '{arm}' chooses other evals; add '{name}' to those, or leave '{arm}' out here"


def _unread(config: Config, name: str) -> Iterator[str]:
    """An eval without a score whose responses nothing reads."""
    read = {ev for reader in graph.readers(config) for _, ev in reader.inputs.runs}
    if config.evals[name].score is None and name not in read | {ev.responses for ev in config.evals.values()}:
        yield (
            f"evals.{name}: has no score, and nothing reads its responses; write `score: NAME`, or name it in a fit, a "
            "synthesis or a context that reads runs"
        )


def _shared(config: Config, name: str, other: str) -> Iterator[str]:
    """An eval whose score needs other responses than those that it shares."""
    words = {"generate": "written responses", "loglikelihood": "given options"}
    needs, there = (words[config.evals[ev].asks] for ev in (name, other))
    if needs != there:
        yield f"evals.{name}.score: needs {needs}, and '{other}' has {there}; write an eval with a dataset of its own"
