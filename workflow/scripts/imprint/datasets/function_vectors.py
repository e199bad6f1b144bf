"""Small tasks of an input and an output (Todd et al., arXiv 2310.15213): antonyms, capitals, plurals. A file is a list
of {"input": TEXT, "output": TEXT}; a list as output stands for its first text. A task is a catalog entry.

Rows are dialogues of a question and its answer, so that they serve as examples and for fits. `synth: split` divides
them into parts for fits, for validation and for evals. An eval asks the question alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.datasets._files import json_objects
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict


class Settings(Strict):
    """Nothing to set."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """The input as the user's turn, the output as the assistant's; reference {"answer": OUTPUT}. Equal inputs are one
    cluster."""
    for _, path in sorted(paths.items()):
        for where, row in json_objects(path):
            asked, said = row.get("input"), row.get("output")
            if isinstance(said, list) and said:
                said = said[0]
            if not all(isinstance(text, str) and text.strip() for text in (asked, said)):
                raise ImprintError(f"{where}: found {row!r:.80}; write texts for input and output")
            turns = {"user": str(asked).strip(), "assistant": str(said).strip()}
            yield {
                "messages": [{"role": role, "content": text} for role, text in turns.items()],
                "reference": {"answer": turns["assistant"]},
                "cluster": turns["user"],
            }
