"""How a config names things: what is defined in it, and plug-ins with their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, SerializeAsAny, StringConstraints, model_validator

from imprint import plugins
from imprint.errors import ImprintError
from imprint.plugins import Strict

NAME = r"^[a-z][a-z0-9_]*[a-z0-9]$"

Name = Annotated[str, StringConstraints(pattern=NAME, max_length=64)]


def path(kind: str, name: str) -> Path:
    """The file of a plug-in that the config names."""
    try:
        return plugins.path(kind, name)
    except ImprintError as error:
        raise ValueError(str(error)) from None


def read(kind: str, name: Any, rest: dict[str, Any]) -> Strict:
    """The settings of plug-in `name`, validated by its own `Settings`."""
    if not isinstance(name, str):
        raise ValueError(f"found {name!r}; write the name of a {kind} plug-in: {', '.join(plugins.names(kind))}")
    try:
        module = plugins.load(kind, name)
    except ImprintError as error:
        raise ValueError(str(error)) from None
    settings: Strict = module.Settings.model_validate(rest)
    return settings


class Plugged(Strict):
    """A plug-in with its settings, written `name` or `{name: settings}`; a lone value is the first setting."""

    kind: ClassVar[str]
    name: str = Field(description="module of the plug-in")
    settings: SerializeAsAny[Strict] = Field(description="its settings")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: Any) -> Any:
        if isinstance(raw, str):
            return {"name": raw, "settings": read(cls.kind, raw, {})}
        if not isinstance(raw, dict) or len(raw) != 1:
            raise ValueError(f"found {raw!r}; write a name, or one name with its settings: {{name: {{key: value}}}}")
        ((name, value),) = raw.items()
        if not isinstance(value, dict):
            fields = plugins.load(cls.kind, name).Settings.model_fields if name in plugins.names(cls.kind) else {}
            value = {next(iter(fields), "value"): value}
        return {"name": name, "settings": read(cls.kind, name, value)}


class ContextRef(Plugged):
    """How an example is put to the model."""

    kind = "contexts"


class ScoreRef(Plugged):
    """How a response is scored."""

    kind = "scores"


class AnalysisRef(Plugged):
    """What is computed from arms beside their scores."""

    kind = "analyses"


def plain() -> ContextRef:
    """An example as it stands."""
    return ContextRef.model_validate("plain")
