"""Problems of a config, in words: pydantic's errors, and problems that show only when the parts are seen together, such
as missing names, cycles, controls that compare nothing, and licences that are not accepted. Leakage between training
and evaluation is checked in `imprint.dag.leakage`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from imprint.config import abilities, catalog, graph, paths, taking
from imprint.config.arms import FitSpec
from imprint.config.questions import Check, Question
from imprint.config.schema import Config
from imprint.runtime import plugins, unknown_keys


def unknown(where: str, name: str, defined: Iterable[str], what: str) -> str:
    """The message for a name that is not defined; `what` is the kind of thing that it should name."""
    names = list(defined)
    family = [other for other in names if other.startswith(f"{name}_")]
    close = family or difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{where}: no {what} named '{name}'; {hint}write one of: {', '.join(names) or '(none are defined)'}"


SHAPES = dict.fromkeys(("dict_type", "model_type"), "a mapping, `{key: value}`") | {"list_type": "a list, `[one]`"}
"""Types of pydantic errors whose messages name Python's types -> what to write in YAML."""


def message(error: Any) -> str:
    """One pydantic error as a message: the place in the YAML, what was found, and what to write instead."""
    location = [part for part in error["loc"] if part != "[key]"]
    where = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", ".".join(str(part) for part in location)) or "the file"
    value = error.get("input")
    kind = error["type"]
    if kind == unknown_keys.TYPE:
        return f"{where}: {error['msg']}"
    if kind == "missing":
        return f"{where}: missing; add it (config/README.md says what it is)"
    if kind == "literal_error" and error["loc"][-1:] == ("[key]",):
        keys = re.findall(r"'(\w+)'", error["ctx"]["expected"])
        return f"{where}: {unknown_keys.text(value, keys)}"
    if error["loc"][-1:] == ("[key]",):
        where = ".".join(map(str, (*location[:-1], value)))  # pydantic's own location has 1 for a key of `true`
        return (
            f"{where}: bad name; write lower-case letters, digits and _, at least two characters, "
            "beginning with a letter and not ending with _"
        )
    if kind == "string_pattern_mismatch":
        return f"{where}: found {value!r}, which does not look like {error['ctx']['pattern']}"
    if kind == "list_type" and isinstance(value, str | int | float):
        return f"{where}: found {value!r:.80}; write a list, `[{value!s:.80}]`"
    if kind in SHAPES:
        return f"{where}: found {value!r:.80}; write {SHAPES[kind]}"
    text = error["msg"].removeprefix("Value error, ")
    if kind in ("value_error", "assertion_error"):
        return f"{where}: {text}"
    return f"{where}: found {value!r:.80}; {text[0].lower()}{text[1:]}".replace("input should be", "write")


def problems(config: Config) -> Iterator[str]:
    """Problems that show only when the parts are seen together, or with the files that they name. The abilities of
    engines and the sets kept for evaluation are checked only where there is no other problem, since these checks look
    every name up."""
    messages = [*_models(config), *_datasets(config), *_evals(config), *taking.problems(config)]
    for name in config.arms:
        messages += _arm(config, name)
        messages += _imported(config, name)
    messages += _questions(config)
    messages += [*_missing(config), *_circle(config)]
    yield from messages or [*_held_back(config), *abilities.problems(config)]


def _models(config: Config) -> Iterator[str]:
    for name, model in config.models.items():
        if model.path and (why := paths.weights_problem(model.path, adapters=False)):
            yield f"models.{name}.path: {why}"


def _datasets(config: Config) -> Iterator[str]:
    for name, dataset in config.datasets.items():
        where = f"datasets.{name}"
        entry = dataset.entry() if dataset.source != "synth" else None
        if entry is not None:
            entries = catalog.load()
            if entry not in entries:
                yield unknown(where, entry, entries, "catalog entry")
            elif entries[entry].non_commercial and entry not in config.accept_licences:
                yield (
                    f"{where}: '{entry}' is for non-commercial use ({entries[entry].licence}); if that is yours, "
                    f"write `accept_licences: [{entry}]`"
                )


def _evals(config: Config) -> Iterator[str]:
    for name, ev in config.evals.items():
        if ev.dataset not in config.datasets:
            yield unknown(f"evals.{name}.dataset", ev.dataset, config.datasets, "dataset")
        if ev.judge is not None and ev.judge not in config.arms:
            yield unknown(f"evals.{name}.judge", ev.judge, config.arms, "arm")
        for _, other in graph.of_scores(config, name).runs:
            yield from _opposed(config, name, other)
        for arm in ev.arms or []:
            if arm not in config.arms:
                yield unknown(f"evals.{name}.arms", arm, config.arms, "arm")


def _opposed(config: Config, name: str, other: str) -> Iterator[str]:
    """Why the responses to the eval `other` cannot be shown beside those to an eval."""
    where, opponent = f"evals.{name}.score", config.evals.get(other)
    if opponent is None:
        return
    if opponent.dataset != config.evals[name].dataset:
        yield f"{where}: '{other}' has other examples; write an eval of the dataset '{config.evals[name].dataset}'"
    if opponent.asks != "generate":
        yield f"{where}: '{other}' compares options, so it has no responses to show; write an eval of written responses"


def _arm(config: Config, name: str) -> Iterator[str]:
    arm, where = config.arms[name], f"arms.{name}"
    if arm.model is not None and arm.model not in config.models:
        yield unknown(f"{where}.model", arm.model, config.models, "model")
    if arm.parent is not None and arm.parent not in config.arms:
        yield unknown(f"{where}.parent", arm.parent, config.arms, "arm")
    for ev in arm.evals or []:
        if ev not in config.evals:
            yield unknown(f"{where}.evals", ev, config.evals, "eval")
    if len(set(arm.control)) != len(arm.control):
        yield f"{where}.control: found {arm.control}; write each control once"
    for control in arm.control:
        if control not in config.arms:
            yield unknown(f"{where}.control", control, config.arms, "arm")
        elif control == name:
            yield f"{where}.control: the arm is its own control; write another arm"
        elif not set(graph.measured_on(config, name)) & set(graph.evals_of(config, control)):
            yield f"{where}.control: shares no eval with '{control}'; add one to `evals` of both, or drop the control"
    if arm.fit and plugins.load("methods", arm.fit.method).TRANSDUCTIVE and not arm.transductive:
        yield f"{where}: {arm.fit.method} adapts to rows that may be an eval's; write `transductive: true`"
    if arm.fit and "context" in arm.fit.model_fields_set and (why := _unused_context(arm.fit)):
        yield f"{where}.fit.context: {why}"


def _unused_context(fit: FitSpec) -> str | None:
    """Why a fit's context would change nothing; None if rows are put to the model under it."""
    datasets = plugins.load("methods", fit.method).inputs(fit.settings).datasets
    if not datasets:
        return f"'{fit.method}' puts no rows to the model, so a context would change nothing; leave it out"
    values = fit.settings.model_dump().values()
    parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
    rows = [part for part in parts if isinstance(part, dict) and set(part) == {"dataset", "contexts"}]
    own = {part["dataset"] for part in rows if part["contexts"] is not None}
    if all(part["contexts"] is not None for part in rows) and own >= set(datasets):
        return "each dataset of this fit has a context of its own, so this one would change nothing; leave it out"
    return None


def _imported(config: Config, name: str) -> Iterator[str]:
    """What an arm without weights cannot do, and logs that cannot be those of an eval."""
    runs, where = config.arms[name].runs, f"arms.{name}"
    if runs is None:
        return
    why = f"'{name}' has no weights, since its runs are imported; write another arm"
    yield from (f"arms.{other}.parent: {why}" for other, arm in config.arms.items() if arm.parent == name)
    yield from (f"evals.{other}.judge: {why}" for other, ev in config.evals.items() if ev.judge == name)
    yield from (f"{reader.where}: {why}" for reader in graph.readers(config) if name in reader.inputs.arms)
    for ev, path in runs.evals.items():
        at = f"{where}.runs.evals.{ev}"
        if ev not in config.evals:
            yield unknown(at, ev, config.evals, "eval")
            continue
        if Path(path).is_dir():
            yield f"{at}: '{path}' is a folder; write the path of the one file in it that is the log of this eval"
        elif not Path(path).is_file():
            yield f"{at}: there is no file '{path}'; write the path of a log"
        if config.evals[ev].environment:
            yield f"{at}: an eval in an environment has dialogues, and a log has none; leave it out"
        if config.evals[ev].asks == "loglikelihood" and runs.metrics is None:
            yield (
                f"{at}: its score compares log-likelihoods, and a log has them by other rules; take the log's own "
                f"values, `take: {{{config.evals[ev].primary}: METRIC}}`, with the name of one of the log's metrics"
            )
        for metric in runs.metrics or {}:
            if metric not in config.evals[ev].metrics:
                yield unknown(f"{where}.runs.take", metric, config.evals[ev].metrics, f"metric of '{ev}'")


def _questions(config: Config) -> Iterator[str]:
    for name, question in config.questions.items():
        where = f"questions.{name}"
        for ev in question.evals:
            yield from _comparison(config, where, question.arm, question.control, ev, question.metric)
        if check := question.check:
            yield from _of_check(config, f"{where}.check", question, check)


def _of_check(config: Config, where: str, question: Question, check: Check) -> Iterator[str]:
    """Why a check cannot be made."""
    arm, control = check.arm or question.arm, check.control or question.control
    if check.eval is not None:
        yield from _comparison(config, where, arm, control, check.eval, check.metric)
    elif arm not in config.arms:
        yield unknown(f"{where}.arm", arm, config.arms, "arm")
    elif config.arms[arm].fit is None:
        yield f"{where}.curve: '{arm}' is not fitted, so it has no training curves; name a fitted arm"


def _comparison(config: Config, where: str, arm: str, control: str, ev: str, metric: str | None) -> Iterator[str]:
    """Why two arms cannot be compared on a metric of an eval."""
    for key, side in (("arm", arm), ("control", control)):
        if side not in config.arms:
            yield unknown(f"{where}.{key}", side, config.arms, "arm")
        elif ev in config.evals and ev not in graph.evals_of(config, side):
            yield f"{where}.eval: '{side}' does not take '{ev}'; add it to the arm's `evals` or to the eval's `arms`"
    if arm == control:
        yield f"{where}.control: the arm is its own control; write another arm"
    if ev not in config.evals:
        yield unknown(f"{where}.eval", ev, config.evals, "eval")
    elif config.evals[ev].score is None:
        yield f"{where}.eval: '{ev}' has no score, so nothing is compared on it; write an eval with a score"
    elif metric is not None:
        directed = [name for name, direction in config.evals[ev].metrics.items() if direction]
        if metric not in directed:
            yield unknown(f"{where}.metric", metric, directed, "metric that says what is better")


def _missing(config: Config) -> Iterator[str]:
    """Names that a plug-in reads, but that the config does not define, and folders that are not there."""
    for reader in graph.readers(config):
        for folder in reader.inputs.folders:
            if why := paths.weights_problem(folder, adapters=True):
                yield f"{reader.where}: {why}"
        for name in reader.inputs.datasets:
            if name not in config.datasets:
                yield unknown(reader.where, name, config.datasets, "dataset")
        for name in dict.fromkeys([*reader.inputs.arms, *(arm for arm, _ in reader.inputs.runs)]):
            if name not in config.arms:
                yield unknown(reader.where, name, config.arms, "arm")
        for arm, ev in reader.inputs.runs:
            if arm not in config.arms:
                continue
            taken = [name for name in graph.evals_of(config, arm) if not config.evals[name].responses]
            if ev not in taken:
                yield unknown(reader.where, ev, taken, f"eval of arm '{arm}'")


def _circle(config: Config) -> Iterator[str]:
    """The first circle of parts that are made from each other, named where its first step is declared."""
    if path := graph.cycle(config):
        node, source = path[:2]
        readers = [
            reader for reader in graph.readers(config) if node in reader.nodes and source in graph.nodes(reader.inputs)
        ]
        where = readers[0].where if readers else f"arms.{node[1]}"
        names = " -> ".join(" on ".join(step[1:]) for step in path)
        yield f"{where}: made from itself: {names}; break the cycle"


def _held_back(config: Config) -> Iterator[str]:
    """Fits on rows that no model may be trained on."""
    for name in config.arms:
        for dataset in graph.rows_of(config, graph.of_fit(config, name)):
            entries = {config.datasets[origin].entry() for origin in graph.origins(config, dataset)}
            for entry in sorted(entry for entry in entries if entry and catalog.load()[entry].evaluation_only):
                yield (
                    f"arms.{name}.fit: trains on '{dataset}', whose rows come from '{entry}'; that set is for "
                    "evaluation only, since its authors ask that no model be trained on it; write another dataset"
                )
