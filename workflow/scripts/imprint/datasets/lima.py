"""Dialogues in the form of LLaMA-Factory's lima.json (LIMA, arXiv 2305.11206): a list of
{"instruction", "input", "output", "history": [[user, assistant], ...]}; LIMA's licence is non-commercial."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict


class Settings(Strict):
    """Nothing to set."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """Dialogues that end with the assistant's turn. Stratum `turns` is how many turns the assistant has."""
    for _, path in sorted(paths.items()):
        try:
            listed = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise ImprintError(f"{path} is not readable JSON ({error}); restore the published file") from error
        if not isinstance(listed, list):
            raise ImprintError(f"{path}: found a {type(listed).__name__}; write a list of rows")
        for number, row in enumerate(listed, 1):
            turns = [*_history(path, number, row), *_last(path, number, row)]
            roles = ("user", "assistant")
            yield {
                "messages": [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)],
                "reference": None,
                "fields": {},
                "strata": {"turns": len(turns) // 2},
            }


def _history(path: Path, number: int, row: Any) -> list[str]:
    history = row.get("history") or [] if isinstance(row, dict) else None
    if not isinstance(history, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) and text.strip() for text in pair)
        for pair in history
    ):
        where = f"{path}, row {number}, history"
        raise ImprintError(f"{where}: found {history!r:.80}; write pairs of texts [user, assistant]")
    return [text for pair in history for text in pair]


def _last(path: Path, number: int, row: dict[str, Any]) -> list[str]:
    texts = [row.get("instruction"), row.get("input", ""), row.get("output")]
    if not all(isinstance(text, str) for text in texts) or not str(texts[0]).strip() or not str(texts[2]).strip():
        where = f"{path}, row {number}"
        raise ImprintError(f"{where}: found the keys {sorted(row)}; write texts for instruction and output")
    instruction, extra, output = map(str, texts)
    return [f"{instruction}\n{extra}" if extra.strip() else instruction, output]
