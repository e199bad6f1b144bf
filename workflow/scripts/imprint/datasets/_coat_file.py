"""One JSON file of COAT's tables, and the checks of what it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imprint.datasets import _coat_configs
from imprint.runtime.errors import ImprintError


class File:
    """A file. Its methods check a value from `where` in the file, and raise `fail` if it is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.value: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise ImprintError(f"{path} is not readable JSON ({error}); restore the published file") from error

    def fail(self, where: object, value: object, instead: str) -> ImprintError:
        """The error for a `value` in the file that should be replaced by `instead`."""
        return _coat_configs.fail(f"{self.path}, {where}", value, instead)

    def names(self, value: Any, where: object) -> list[str]:
        """A list of different, non-empty strings."""
        if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
            raise self.fail(where, value, "a list of at least one name")
        if len(set(value)) < len(value):
            raise self.fail(where, value, "each name once")
        return value

    def keyed(self, value: Any, keys: list[str], where: object) -> dict[str, Any]:
        """An object with exactly these keys."""
        if not isinstance(value, dict):
            raise self.fail(where, value, "a JSON object")
        for key in sorted(set(value) ^ set(keys)):
            difference = f"{'unknown' if key in value else 'no'} entry {key}"
            raise self.fail(where, difference, "exactly the entries that the other files have")
        return value

    def listed(self, value: Any, where: object) -> list[Any]:
        """A list."""
        if not isinstance(value, list):
            raise self.fail(where, value, "a list")
        return value
