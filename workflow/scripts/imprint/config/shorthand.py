"""What a config may write in short: an arm that is `like` another one, an arm `for` each of several values, and several
scores of one eval, and a fit that reads a run without naming its dataset or score. `written_out` writes the arms and
evals in full, before anything else looks at them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from imprint.config.arms import Arm
from imprint.config.evals import ASKING
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError

Raw = dict[str, Any]
MOST_ARMS = 1000  # that one `for` may make
LABEL = re.compile(r"[a-z0-9_]*[a-z0-9]")
SLOTS = ("context", "hooks", "decode")
"""Keys whose mapping names a plug-in. Another plug-in's settings take the place of the mapping, and do not join it."""


def written_out(raw: Raw) -> Raw:
    """A config's mapping with all arms and evals in full. What has not the form of an arm or an eval is left for the
    config's own checks. Raises ImprintError that says where, what was found, and what to write."""
    arms, evals = raw.get("arms"), raw.get("evals")
    full = dict(raw)
    families: dict[str, list[str]] = {}
    if isinstance(arms, dict):
        families, each = _families(arms)
        in_full = _in_full(each, families)
        full["arms"] = {name: _with_members(arm, "control", families) for name, arm in in_full.items()}
    if isinstance(evals, dict):
        each = {name: _with_members(ev, "arms", families) for name, ev in _one_score_each(evals).items()}
        full["evals"] = {name: _with_responses(each, name) for name in each}
    if isinstance(arms, dict) and isinstance(evals, dict | None):
        full["arms"] = {name: _with_run(name, arm, full.get("evals") or {}) for name, arm in full["arms"].items()}
    return full


def _with_members(part: Any, key: str, families: Mapping[str, list[str]]) -> Any:
    """A part of the config whose list `key` has the arms of a family in place of the family's name."""
    if not isinstance(part, dict) or not isinstance(part.get(key), list):
        return part
    names = [families.get(name, [name]) if isinstance(name, str) else [name] for name in part[key]]
    return part | {key: list(itertools.chain(*names))}


# Arms


def _families(arms: Raw) -> tuple[dict[str, list[str]], Raw]:
    """Family -> the names of its arms; and all arms, where those of a family stand in its place."""
    families: dict[str, list[str]] = {}
    each: Raw = {}
    for name, arm in arms.items():
        members = dict(_members(name, arm)) if isinstance(arm, dict) and "for" in arm else {name: arm}
        for member in members:
            if member in each or (member != name and member in arms):
                raise ImprintError(
                    f"arms.{name}: makes an arm '{member}', and there is one already; rename one of them"
                )
        if isinstance(arm, dict) and "for" in arm:
            families[name] = list(members)
        each |= members
    return families, each


def _members(name: str, arm: Raw) -> Iterator[tuple[str, Raw]]:
    """(name, mapping) of each arm that an arm with `for` stands for."""
    where, paths = f"arms.{name}.for", arm["for"]
    if not isinstance(paths, dict) or not paths:
        raise ImprintError(f"{where}: found {paths!r:.80}; write {{fit.learning_rate: {{low: 1e-5, high: 3e-5}}}}")
    choices = [list(_choices(f"{where}.{path}", path, values)) for path, values in paths.items()]
    if (count := math.prod(map(len, choices))) > MOST_ARMS:
        raise ImprintError(f"{where}: makes {count:,} arms, more than {MOST_ARMS:,}; write fewer values")
    common = {key: value for key, value in arm.items() if key != "for"}
    for combination in itertools.product(*choices):
        member = common
        for _, changes in combination:
            member = _laid_over(member, changes)
        yield "_".join([str(name), *(label for label, _ in combination)]), member


def _choices(where: str, path: Any, values: Any) -> Iterator[tuple[str, Raw]]:
    """(label, the mapping that sets the key at `path`) for each value of a key."""
    keys = str(path).split(".")
    known = [field.alias or key for key, field in Arm.model_fields.items()]
    if keys[0] not in known or not all(keys):
        raise ImprintError(f"{where}: is no key of an arm; write its whole path, such as fit.learning_rate")
    if not isinstance(values, dict | list) or not values:
        raise ImprintError(f"{where}: found {values!r:.80}; write a list of values, or {{NAME: VALUE}}")
    labelled = list(values.items()) if isinstance(values, dict) else [(value, value) for value in values]
    labels = [str(label) for label, _ in labelled]
    name_them = "" if isinstance(values, dict) else f"; name each value, such as {{low: {values[0]!r:.40}}}"
    for label, _ in labelled:
        if isinstance(label, bool) or not isinstance(label, str | int) or not LABEL.fullmatch(str(label)):
            raise ImprintError(
                f"{where}: {label!r:.80} cannot end the name of an arm, which has lower-case letters, digits and _"
                + name_them
            )
    if len(set(labels)) < len(labels):
        raise ImprintError(f"{where}: found {labels!r:.80}; write each value once")
    for label, (_, value) in zip(labels, labelled, strict=True):
        changes: Any = value
        for key in reversed(keys):
            changes = {key: changes}
        yield label, changes


def _in_full(arms: Raw, families: Mapping[str, list[str]]) -> Raw:
    """The arms, each with the keys of the arm that it is like, as far as it does not write them itself."""
    full: Raw = {}
    for name in arms:
        trail, other = [name], _likened(arms, families, name)
        while other is not None and other not in full:
            if other in trail:
                circle = " -> ".join([*trail[trail.index(other) :], other])
                raise ImprintError(f"arms.{other}.like: the arm is like itself: {circle}; write one of them in full")
            trail.append(other)
            other = _likened(arms, families, other)
        for each in reversed(trail):
            full[each] = arms[each] if other is None else _laid_over(full[other], arms[each])
            other = each
    return {name: full[name] for name in arms}


def _likened(arms: Raw, families: Mapping[str, list[str]], name: str) -> str | None:
    """The arm that an arm says it is like; None where it says nothing."""
    other = arms[name].get("like") if isinstance(arms[name], dict) else None
    if other is None:
        return None
    where = f"arms.{name}.like"
    if isinstance(other, str) and other in families:
        raise ImprintError(f"{where}: '{other}' stands for several arms; write one of: {', '.join(families[other])}")
    if not isinstance(other, str) or not isinstance(arms.get(other), dict):
        raise ImprintError(f"{where}: no arm named {other!r:.80}; write one of: {', '.join(map(str, arms))}")
    return other


def _laid_over(base: Raw, over: Raw) -> Raw:
    """`base` with the values of `over`. Mappings are merged key by key, and null takes a key out."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(below, dict) and (key not in SLOTS or value.keys() == below.keys()):
            merged[key] = _laid_over(below, value)
        else:
            merged[key] = value
    return merged


def _with_run(name: str, arm: Any, evals: Raw) -> Any:
    """An arm whose fit reads a run, with the dataset of the run's eval, and with the eval's score where the fit writes
    none."""
    fit = arm.get("fit") if isinstance(arm, dict) else None
    if not isinstance(fit, dict) or not isinstance(fit.get("run"), dict) or not _reads_a_run(fit.get("method")):
        return arm
    run, where = fit["run"], f"arms.{name}.fit.run"
    other = run.get("eval")
    if not isinstance(other, str) or other not in evals:
        raise ImprintError(f"{where}.eval: no eval named {other!r:.80}; write one of: {', '.join(map(str, evals))}")
    if "dataset" in run:
        raise ImprintError(f"{where}.dataset: the rows are those of the eval '{other}'; leave it out")
    ev = evals[other] if isinstance(evals[other], dict) else {}
    if ev.get("environment") is not None:
        raise ImprintError(f"{where}.eval: a response of '{other}' ends a dialogue; write an eval without environment")
    if _compares_options(ev.get("score")):
        raise ImprintError(f"{where}.eval: '{other}' compares options, so it has no answers; write another eval")
    filled = {"run": run | {"dataset": ev["dataset"]}} if "dataset" in ev else {}
    if fit.get("score") is None and ev.get("score") is not None:
        filled["score"] = ev["score"]
    return arm | {"fit": fit | filled}


def _reads_a_run(method: Any) -> bool:
    return method in plugins.names("methods") and "run" in plugins.load("methods", method).Settings.model_fields


# Evals


def _one_score_each(evals: Raw) -> Raw:
    """The evals, with an eval of its own for each score after the first of a list."""
    each: Raw = {}
    for name, ev in evals.items():
        parts = dict(_by_score(name, ev)) if isinstance(ev, dict) and isinstance(ev.get("score"), list) else {name: ev}
        for part in parts:
            if part in each or (part != name and part in evals):
                raise ImprintError(
                    f"evals.{name}.score: makes an eval '{part}', and there is one already; rename one of them"
                )
        each |= parts
    return each


def _by_score(name: str, ev: Raw) -> Iterator[tuple[str, Raw]]:
    """(name, mapping) of an eval with the first of its scores, and of one for each further score. The judge goes to
    those that ask one."""
    scores, where = ev["score"], f"evals.{name}.score"
    names = [_named(score) for score in scores]
    if not scores or len(set(names)) != len(names):
        raise ImprintError(f"{where}: found {scores!r:.80}; write at least one score, and each once")
    first, *others = scores
    judging = {"judge": ev["judge"]} if "judge" in ev else {}
    asking = [score for score in others if _asks_a_judge(score)]
    own = _asks_a_judge(first) or ev.get("describe") or not asking
    yield name, {key: value for key, value in ev.items() if key != "judge" or own} | {"score": first}
    kept = {"retention": ev["retention"]} if "retention" in ev else {}
    for score in others:
        judge = judging if score in asking else {}
        yield f"{name}_{_named(score)}", {"responses": ev.get("responses", name), "score": score, **kept, **judge}


def _named(score: Any) -> str:
    """The name of a score, which stands alone or before its settings."""
    return str(next(iter(score), "") if isinstance(score, dict) else score)


def _asks_a_judge(score: Any) -> bool:
    name = _named(score)
    return name in plugins.names("scores") and bool(plugins.load("scores", name).QUESTIONS)


def _compares_options(score: Any) -> bool:
    name = _named(score)
    return name in plugins.names("scores") and plugins.load("scores", name).ASKS == "loglikelihood"


def _with_responses(evals: Raw, name: str) -> Any:
    """An eval that scores another one's responses, with the keys that say how these were asked for."""
    ev = evals[name]
    if not isinstance(ev, dict) or ev.get("responses") is None:
        return ev
    other, where = ev["responses"], f"evals.{name}.responses"
    asked = evals.get(other) if isinstance(other, str) else None
    if not isinstance(asked, dict):
        raise ImprintError(f"{where}: no eval named {other!r:.80}; write one of: {', '.join(map(str, evals))}")
    if asked.get("responses") is not None:
        raise ImprintError(f"{where}: '{other}' has the responses of {asked['responses']!r:.80}; write that eval")
    if written := [key for key in ASKING if key in ev]:
        raise ImprintError(f"evals.{name}.{written[0]}: the responses are those of '{other}'; leave it out")
    return {key: asked[key] for key in ASKING if key in asked} | ev
