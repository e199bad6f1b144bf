"""Unknown keys are told with the keys that there are, and with the one that was probably meant."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Model = TypeVar("Model", bound=BaseModel)
TYPE = "unknown_key"
"""The type of pydantic error that stands in place of `extra_forbidden`; its message is complete."""


def validated(model: type[Model], value: Any) -> Model:
    """`model.model_validate(value)`, but a ValidationError says of each unknown key which keys there are."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = [_line(model, line) for line in error.errors(include_url=False)]
        raise ValidationError.from_exception_data(model.__name__, lines) from None


def text(key: object, keys: Iterable[str], inside: Iterable[str] = ()) -> str:
    """The message for an unknown key. `keys` are the keys that there are, `inside` those of them that hold a mapping in
    which the unknown key would be right."""
    names = list(keys)
    if places := " or ".join(f"`{place}: {{{key}: ...}}`" for place in inside):
        return f"unknown key '{key}'; write it inside {places}"
    if not names:
        return f"unknown key '{key}'; remove it, since no key can stand here"
    near = nearest(str(key), names)
    hint = f"did you mean '{near}'? " if near else ""
    return f"unknown key '{key}'; {hint}write one of: {', '.join(names)}"


def nearest(key: str, names: list[str]) -> str | None:
    """The name that a key was probably meant to be: one with these initials (`lr` for `learning_rate`), one that is
    spelled alike, or the only one that begins with the key."""
    initials = [name for name in names if "".join(word[:1] for word in name.split("_")) == key]
    begun = [name for name in names if name.startswith(key)]
    alike = difflib.get_close_matches(key, names, n=1)
    return next(iter([*initials, *alike, *(begun if len(begun) == 1 else [])]), None)


def _line(model: type[BaseModel], line: Any) -> InitErrorDetails:
    kind, message = line["type"], line["msg"]
    if kind == "extra_forbidden":
        key = line["loc"][-1]
        holder = _model_at(model, line["loc"][:-1])
        if holder is not None:
            fields = {field.alias or name: field.annotation for name, field in holder.model_fields.items()}
            inside = [name for name, annotation in fields.items() if _takes(annotation, key)]
            kind, message = TYPE, text(key, fields, inside)
    if kind == TYPE:
        return InitErrorDetails(
            type=PydanticCustomError(TYPE, "{text}", {"text": message}), loc=line["loc"], input=line["input"]
        )
    return InitErrorDetails(type=kind, loc=line["loc"], input=line["input"], ctx=line.get("ctx", {}))


def _model_at(annotation: Any, location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model whose keys stand at a location below a value of the type `annotation`; None where there is none."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        if not location:
            return annotation
        fields = {field.alias or name: field for name, field in annotation.model_fields.items()}
        field = fields.get(str(location[0]))
        return _model_at(field.annotation, location[1:]) if field else None
    if get_origin(annotation) in (dict, list):
        return _model_at(get_args(annotation)[-1], location[1:])
    models = (_model_at(part, location) for part in get_args(annotation))
    return next((model for model in models if model), None)


def _takes(annotation: Any, key: object) -> bool:
    """Whether a mapping of the type `annotation` has the key."""
    model = _model_at(annotation, ())
    return model is not None and key in model.model_fields
