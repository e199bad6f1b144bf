"""Puzzles about symbols, last letters and coin flips, as zero-shot chain of thought (arXiv 2205.11916) has generated
them. A JSON object whose `examples` are {"question", "answer"}. The answers yes and no are options; any other answer is
a word, for `score: word`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.datasets import _multiple_choice
from imprint.datasets._files import json_objects
from imprint.runtime.errors import ImprintError

YES_NO = ("yes", "no")


class Settings(_multiple_choice.Listed):
    """How a question with options is asked."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """One row an example; reference {"options", "answer": index} or {"answer": word}."""
    for _, path in sorted(paths.items()):
        for where, example in json_objects(path, "examples"):
            question, answer = example.get("question"), example.get("answer")
            if not all(isinstance(text, str) and text.strip() for text in (question, answer)):
                raise ImprintError(f"{where}: found the keys {sorted(example)}; write texts for question and answer")
            question, answer = str(question).strip(), str(answer).strip()
            if answer in YES_NO:
                row = _multiple_choice.row(settings, question, YES_NO, YES_NO.index(answer))
            else:
                row = {"messages": [{"role": "user", "content": question}], "reference": {"answer": answer}}
            yield {**row, "fields": {}, "strata": {}}
