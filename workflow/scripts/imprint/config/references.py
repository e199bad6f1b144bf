"""How a config refers to what it defines, and to plug-ins with their settings."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, SerializeAsAny, StringConstraints, model_validator

from imprint.runtime import plugins, unknown_keys
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict

NAME = r"^[a-z][a-z0-9_]*[a-z0-9]$"

Name = Annotated[str, StringConstraints(pattern=NAME, max_length=64)]


def load(kind: str, name: str) -> Any:
    """The module of a plug-in that the config names. Raises ValueError, which pydantic collects, for one that is not
    there or is broken."""
    try:
        return plugins.load(kind, name)
    except ImprintError as error:
        raise ValueError(str(error)) from None


def read(kind: str, name: Any, mapping: dict[str, Any]) -> Strict:
    """The settings of the plug-in `name`, validated by its own `Settings`. Raises ValueError for a bad name, and
    pydantic's ValidationError for bad settings."""
    if not isinstance(name, str):
        raise ValueError(f"found {name!r}; write the name of a {kind} plug-in: {', '.join(plugins.names(kind))}")
    settings: Strict = unknown_keys.validated(load(kind, name).Settings, mapping)
    return settings


class Plugged(Strict):
    """A plug-in with its settings, written as `plugins.written` says."""

    kind: ClassVar[str]
    name: str = Field(description="module of the plug-in")
    settings: SerializeAsAny[Strict] = Field(description="its settings")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: Any) -> Any:
        name, settings = plugins.written(cls.kind, raw)
        return {"name": name, "settings": settings}


class ContextRef(Plugged):
    """How an example is put to the model."""

    kind = "contexts"


class ScoreRef(Plugged):
    """How a response is scored."""

    kind = "scores"


class AnalysisRef(Plugged):
    """What is computed about arms in addition to their scores."""

    kind = "analyses"


class HookRef(Plugged):
    """What is changed in the activations."""

    kind = "hooks"


class DecoderRef(Plugged):
    """How an answer is drawn."""

    kind = "decoders"


class EnvironmentRef(Plugged):
    """What speaks for the other side of a dialogue."""

    kind = "environments"


def _listed(value: Any) -> Any:
    """A value that is not a list becomes a list of one."""
    return value if isinstance(value, list) else [value]


Contexts = Annotated[list[ContextRef], BeforeValidator(_listed)]
Hooks = Annotated[list[HookRef], BeforeValidator(_listed)]


def plain() -> list[ContextRef]:
    """The default contexts: the example is put to the model unchanged."""
    return [ContextRef.model_validate("plain")]
