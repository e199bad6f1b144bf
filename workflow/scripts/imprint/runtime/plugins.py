"""The one plug-in mechanism: the name in the config is the name of the module.

`method: sft` is `imprint/methods/sft.py`, `score: ifeval` is `imprint/scores/ifeval.py`, and so on. Each kind of
plug-in has a contract, a class in `imprint/KIND/__init__.py`. A plug-in must define the parts of the contract that have
no default, and may define those that have one. `load` checks a module against the contract and fills in the defaults.

Plug-ins import without torch, because the Snakefile imports every plug-in that a config names in order to check its
settings. So heavy imports are inside functions. A helper of one plug-in is the file `_NAME.py` beside it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from imprint.runtime import unknown_keys
from imprint.runtime.errors import ImprintError

PACKAGE = Path(__file__).parent.parent
ALIKE = 0.8  # a name in a module that is this similar (difflib's ratio) to a missing part is taken for a misspelling


class Strict(BaseModel):
    """Base of everything read from YAML: unknown keys are errors, values are not coerced, numbers are finite, instances
    are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False)


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model as people read them: its own before those of the models that it builds on."""
    names = dict.fromkeys(name for part in model.__mro__ for name in inspect.get_annotations(part))
    return {name: model.model_fields[name] for name in names if name in model.model_fields}


class Inputs(NamedTuple):
    """What a plug-in reads beside the arguments of its functions: names of datasets, names of arms (their artifacts),
    (arm, eval) pairs (their generations), (kind, name) of the plug-ins that it runs, such as the scores that a method
    uses as rewards, and paths of folders of weights that the user has made."""

    datasets: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    runs: tuple[tuple[str, str], ...] = ()
    plugins: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()

    def __add__(self, other: tuple[Any, ...]) -> Inputs:  # type: ignore[override]
        """The names of both, in order and without repeats."""
        return Inputs(*(tuple(dict.fromkeys((*ours, *theirs))) for ours, theirs in zip(self, other, strict=True)))


class Contract:
    """The part of the contract that all kinds share, and the base class of the kinds' contracts. In a contract, a
    function that a plug-in must define is abstract, and a constant that it must define is annotated and has no
    value."""

    Settings: type[Strict]
    """The keys that the plug-in takes in the config."""

    @staticmethod
    def inputs(settings: Any) -> Inputs:
        """What the plug-in reads. The answer may depend on the settings alone."""
        return Inputs()


def contract(kind: str) -> type[Contract]:
    """The contract of a kind of plug-in."""
    agreed: type[Contract] = importlib.import_module(f"imprint.{kind}").CONTRACT
    return agreed


@cache
def names(kind: str) -> tuple[str, ...]:
    """The names of a kind's plug-ins, sorted."""
    return tuple(sorted(file.stem for file in (PACKAGE / kind).glob("[a-z]*.py")))


@cache
def path(kind: str, name: str) -> Path:
    """The file of a plug-in. Raises ImprintError for an unknown name; the message lists the names that there are."""
    defined = names(kind)
    if name not in defined:
        close = difflib.get_close_matches(name, defined, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ImprintError(
            f"no {kind} plug-in named '{name}'; {hint}write one of: {', '.join(defined) or '(there is none yet)'}"
        )
    return PACKAGE / kind / f"{name}.py"


@cache
def load(kind: str, name: str) -> Any:
    """The module of a plug-in, checked against its kind's contract, and with the contract's defaults for the parts that
    the module leaves out. Raises ImprintError for an unknown name, and for a module that does not keep the contract."""
    path(kind, name)
    module = importlib.import_module(f"imprint.{kind}.{name}")
    agreed = contract(kind)
    if problems := "; ".join(_problems(module, agreed)):
        raise ImprintError(
            f"{path(kind, name)} is no {kind} plug-in: {problems}; imprint/{kind}/__init__.py says what one is"
        )
    for part, default in _parts(agreed).items():
        if part not in vars(module) and default is not None:
            setattr(module, part, default.value)
    return module


class _Default(NamedTuple):
    value: Any


def _parts(agreed: type[Contract]) -> dict[str, _Default | None]:
    """Name of each part of a contract -> its default; None for a part that a plug-in must define."""
    parts: dict[str, _Default | None] = {}
    for owner in reversed(agreed.__mro__[:-1]):
        parts |= dict.fromkeys(inspect.get_annotations(owner))
        for name, value in vars(owner).items():
            if not name.startswith("_"):
                function = value.__func__ if isinstance(value, staticmethod) else value
                required = getattr(function, "__isabstractmethod__", False)
                parts[name] = None if required else _Default(function)
    return parts


def _problems(module: ModuleType, agreed: type[Contract]) -> Iterator[str]:
    """The ways in which a module breaks a contract, in words."""
    parts, defined = _parts(agreed), vars(module)
    for name, default in parts.items():
        if name not in defined:
            if default is None:
                yield f"it defines no {name}"
            continue
        expected, actual = _parameters(inspect.getattr_static(agreed, name, None)), _parameters(defined[name])
        if expected is not None and actual != expected:
            written = f"{name}, which is no function," if actual is None else f"{name}({', '.join(actual)})"
            yield f"{written} should be {name}({', '.join(expected)})"
    if "Settings" in defined and not (inspect.isclass(defined["Settings"]) and issubclass(defined["Settings"], Strict)):
        yield "its Settings are no class below plugins.Strict"
    for name, value in defined.items():
        written_here = value.__module__ == module.__name__ if inspect.isfunction(value) else name.isupper()
        if name not in parts and not name.startswith("_") and written_here:
            missing = [part for part, default in parts.items() if part not in defined and _of_a_kind(value, default)]
            for alike in difflib.get_close_matches(name, missing, 1, ALIKE):
                yield f"it defines {name}, which looks like {alike}"


def _parameters(part: Any) -> list[str] | None:
    """The names of a function's parameters; None for a part that is not a function."""
    function = part.__func__ if isinstance(part, staticmethod) else part
    return list(inspect.signature(function).parameters) if inspect.isfunction(function) else None


def _of_a_kind(value: Any, default: _Default | None) -> bool:
    """Whether a value has the type of a contract's part: a function for a function, a text for a text, a number for a
    number. A part without a default takes any."""
    if default is None or type(value) is type(default.value):
        return True
    return isinstance(value, int | float) and isinstance(default.value, int | float)


def written(kind: str, raw: Any) -> tuple[str, Strict]:
    """The name and the settings of a plug-in that the config names as NAME or {NAME: SETTINGS}. Settings that are no
    mapping are the value of the plug-in's first setting. Raises ValueError for a bad name, and pydantic's
    ValidationError for bad settings."""
    named = {raw: {}} if isinstance(raw, str) else raw
    if not isinstance(named, dict) or len(named) != 1:
        raise ValueError(f"found {raw!r}; write a name, or one name with its settings: {{name: {{key: value}}}}")
    ((name, value),) = named.items()
    if not isinstance(name, str):
        raise ValueError(f"found {name!r}; write the name of a {kind} plug-in: {', '.join(names(kind))}")
    try:
        agreed = load(kind, name).Settings
    except ImprintError as error:
        raise ValueError(str(error)) from None
    if not isinstance(value, dict):
        value = {next(iter(agreed.model_fields), "value"): value}
    return name, unknown_keys.validated(agreed, value)


class Plug(Strict):
    """A plug-in with its settings, as a job's spec has it."""

    name: str
    settings: dict[str, Any] = Field({})

    def open(self, kind: str) -> tuple[Any, Any]:
        """The plug-in's module, and its settings as the module's `Settings`."""
        return load(kind, self.name), settings(kind, self.name, self.settings)


def settings(kind: str, name: str, mapping: dict[str, Any]) -> Any:
    """The `Settings` of a plug-in, from the mapping that a job's params hold. The config has validated it before."""
    return load(kind, name).Settings.model_validate_json(json.dumps(mapping))
