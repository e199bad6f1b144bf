"""Rows as people write them: one JSON object a line, of text and numbers that every later stage can hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from imprint.errors import ImprintError


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"the key {twice!r:.80} stands twice in one object")
    return dict(pairs)


def rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of the lines of a file called `name`, numbered from 1; empty lines are skipped. Raises ImprintError
    for what is no JSON object, keys that stand twice, NaN and infinities, numbers of thousands of digits, and halves of
    characters."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = json.loads(line, parse_constant=_constant, object_pairs_hook=_object)
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ImprintError(f"{where}: holds half a character (a lone surrogate); write whole ones") from None
        except (ValueError, RecursionError) as error:
            raise ImprintError(f"{where}: not JSON ({error}); write one JSON object a line") from None
        if not isinstance(row, dict):
            raise ImprintError(f"{where}: found {row!r:.80}; write one JSON object a line")
        yield number, row
