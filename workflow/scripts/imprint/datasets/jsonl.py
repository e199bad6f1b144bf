"""Rows of our own, one JSON object a line: {"messages": [{"role", "content"}], "reference"?, "fields"?, "strata"?,
"cluster"?}. Rows with the same cluster, a text, depend on each other, such as the questions about one document.

Example: {"messages": [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Red."}]}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.tables import json_lines

ROLES = ("system", "user", "assistant")
KEYS = ("messages", "reference", "fields", "strata", "cluster")


class Settings(Strict):
    """Nothing to set."""


def lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE, line N", object) of every line of a JSONL file that is not empty. Raises ImprintError with that place."""
    try:
        with open(path, encoding="utf-8") as handle:
            for number, row in json_lines.rows(handle, str(path)):
                yield f"{path}, line {number}", row
    except (OSError, UnicodeDecodeError) as error:
        raise ImprintError(f"{path} cannot be read as UTF-8 text ({error}); restore the file") from error


def _message(value: Any, where: str) -> dict[str, str]:
    if (
        not isinstance(value, dict)
        or sorted(value) != ["content", "role"]
        or value["role"] not in ROLES
        or not isinstance(value["content"], str)
        or not value["content"].strip()
    ):
        raise ImprintError(
            f'{where}: found {value!r:.120}; write {{"role": "...", "content": "..."}} with a role of '
            f"{', '.join(ROLES)} and a content that is not empty"
        )
    return {"role": value["role"], "content": value["content"]}


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """The rows of all files, by file name, each checked. Only a row with a reference may have no messages."""
    for _, path in sorted(paths.items()):
        for where, row in lines(path):
            if unknown := sorted(set(row) - set(KEYS)):
                raise ImprintError(
                    f"{where}: unknown key '{unknown[0]}'; write only {', '.join(KEYS)}, or say in the config what "
                    "your own keys hold: `columns: {messages: {user: KEY}}` (docs/data.md)"
                )
            messages = row.get("messages")
            if not isinstance(messages, list) or not (messages or row.get("reference")):
                raise ImprintError(f"{where}, messages: found {messages!r:.80}; write a list of at least one message")
            for key in ("fields", "strata", "reference"):
                if not isinstance(row.get(key, {}), dict) and not (key == "reference" and row[key] is None):
                    raise ImprintError(f"{where}, {key}: found {row[key]!r:.80}; write a JSON object")
            if "cluster" in row and not (isinstance(row["cluster"], str) and row["cluster"].strip()):
                raise ImprintError(f"{where}, cluster: found {row['cluster']!r:.80}; write a text that is not blank")
            yield {
                "messages": [_message(m, f"{where}, message {place}") for place, m in enumerate(messages, 1)],
                "reference": row.get("reference"),
                "fields": row.get("fields", {}),
                "strata": row.get("strata", {}),
                **({"cluster": row["cluster"]} if "cluster" in row else {}),
            }
