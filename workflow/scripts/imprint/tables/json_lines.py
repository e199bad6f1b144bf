"""Rows as people write them, one JSON object a line or an array of objects, with only such text and numbers as every
later stage can store."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from imprint.runtime.errors import ImprintError


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"the key {twice!r:.80} is written twice in one object")
    return dict(pairs)


def value(text: str, where: str, instead: str, constant: Callable[[str], Any] = _constant) -> Any:
    """The value of a JSON text. Raises ImprintError, which names `where` and says what to write `instead`, for text
    that is not JSON, a repeated key, a number of thousands of digits, a lone surrogate, and NaN or an infinity, unless
    `constant` gives a value for their names."""
    try:
        content = json.loads(text, parse_constant=constant, object_pairs_hook=_object)
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ImprintError(f"{where}: holds half a character (a lone surrogate); write whole ones") from None
    except (ValueError, RecursionError) as error:
        raise ImprintError(f"{where}: not JSON ({error}); write {instead}") from None
    return content


def rows(
    lines: Iterable[str], name: str, first: int = 1, constant: Callable[[str], Any] = _constant
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line of the file `name` that is not empty; `first` is the number of the first
    line. Raises ImprintError for a line that is not a JSON object, and for what `value` refuses."""
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        row = value(line, where, "one JSON object a line", constant)
        if not isinstance(row, dict):
            raise ImprintError(f"{where}: found {row!r:.80}; write one JSON object a line")
        yield number, row


def array(text: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of its first line, object) of every object of a JSON array, the whole text of the file `name`. Raises
    ImprintError with the line of what is not such an object, as `rows` does, and of what is no array of them."""
    decoder = json.JSONDecoder(parse_constant=_constant, object_pairs_hook=_object)
    line, counted = 1, 0

    def skipped(place: int) -> int:
        """The place after blanks; counts the lines up to there."""
        nonlocal line, counted
        end = re.compile(r"[ \t\r\n]*").match(text, place).end()  # type: ignore[union-attr]
        line += text.count("\n", counted, end)
        counted = end
        return end

    def fail(problem: object, at: int | None = None) -> ImprintError:
        return ImprintError(f"{name}, line {at or line}: {problem}; write an array of JSON objects")

    place = skipped(0)
    if not text.startswith("[", place):
        raise fail(f"found {text[place : place + 20]!r}")
    place = skipped(place + 1)
    while not text.startswith("]", place):
        first = line
        try:
            row, end = decoder.raw_decode(text, place)
            json.dumps(row, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise fail(f"not JSON ({error.msg})", error.lineno) from None
        except UnicodeEncodeError:
            raise fail("holds half a character (a lone surrogate)") from None
        except (ValueError, RecursionError) as error:
            raise fail(f"not JSON ({error})") from None
        if not isinstance(row, dict):
            raise fail(f"found {row!r:.80}")
        yield first, row
        place = skipped(end)
        if text.startswith(",", place):
            place = skipped(place + 1)
            if text.startswith("]", place):
                raise fail("found a comma before the end of the array")
        elif not text.startswith("]", place):
            raise fail(f"found {text[place : place + 20]!r} after an object")
    if (place := skipped(place + 1)) < len(text):
        raise fail(f"found {text[place : place + 20]!r} after the array")
