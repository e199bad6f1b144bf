"""From YAML to a checked `Config`. `load(paths, overrides)` returns the config, or raises one `ImprintError` that lists
every problem with its path in the YAML, what was found, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imprint.config import checks, shorthand, strict_yaml
from imprint.config.schema import Config
from imprint.runtime import unknown_keys
from imprint.runtime.errors import ImprintError

DEFAULT = Path("config/config.yaml")


def _long_numbers(value: Any, where: str = "") -> Iterator[str]:
    """A message for each whole number of more than 64 bits: Python refuses to print the largest ones, so no later check
    could name them."""
    if isinstance(value, int) and value.bit_length() > 64:
        yield f"{where}: found a whole number of {value.bit_length():,} bits; write one of at most 64"
    elif isinstance(value, dict):
        for key, part in value.items():
            long_key = list(_long_numbers(key, f"a key of {where or 'the file'}"))
            yield from long_key or _long_numbers(part, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from _long_numbers(part, f"{where}[{place}]")


def parse(raw: dict[str, Any]) -> Config:
    """The config that a mapping describes. Raises one `ImprintError` that lists every problem."""
    if long := list(_long_numbers(raw)):
        raise ImprintError("\n".join(long))
    try:
        config = unknown_keys.validated(Config, shorthand.written_out(raw))
    except ValidationError as error:
        lines = dict.fromkeys(checks.message(item) for item in error.errors(include_url=False))
        raise ImprintError("\n".join(lines)) from None
    problems = list(checks.problems(config))
    if problems:
        raise ImprintError("\n".join(problems))
    return config


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, which win; nested mappings are merged key by key, as `--config` does it."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def load(paths: list[Path], overrides: dict[str, Any] | None = None) -> Config:
    """The checked config of YAML files and overrides; later files win over earlier ones, and `overrides` over all.
    Raises one `ImprintError` that lists every problem."""
    raw: dict[str, Any] = {}
    for path in paths:
        raw = merge(raw, strict_yaml.load(path))
    try:
        return parse(merge(raw, overrides or {}))
    except ImprintError as error:
        source = ", ".join(map(str, paths)) + (" with --config" if overrides else "")
        raise ImprintError(f"{source} does not describe an experiment:\n{error}") from None
