r"""Questions of mathematics with a short answer: {"problem", "answer"}, or {"problem", "solution"} whose solution ends
in \boxed{}, one object a line (.jsonl) or in one list (.json). MATH-500 (arXiv 2305.20050), AIME 2024, AMC 2023, the
training problems of DeepScaleR.

Example: {"problem": "Find $1+1$.", "solution": "\\boxed{2}"} has the reference {"answer": "2"}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.datasets.jsonl import lines
from imprint.errors import ImprintError
from imprint.plugins import Strict
from imprint.scores.math import boxed


class Settings(Strict):
    """Nothing to set."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """The problem as it is; reference {"answer": text}; strata {"subject", "level"} where a file has them."""
    for _, path in sorted(paths.items()):
        for where, row in _objects(path):
            problem = row.get("problem")
            if not isinstance(problem, str) or not problem.strip():
                raise ImprintError(f"{where}: found the keys {sorted(row)}; write a text for `problem`")
            yield {
                "messages": [{"role": "user", "content": problem.strip()}],
                "reference": {"answer": _answer(row, where)},
                "fields": {},
                "strata": {key: str(row[key]) for key in ("subject", "level") if key in row},
            }


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix != ".json":
        yield from lines(path)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ImprintError(f"{path} cannot be read as JSON ({error}); delete it and run again") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ImprintError(f"{path}: found no list of objects; write [{{...}}, ...]")
    for number, row in enumerate(found, 1):
        yield f"{path}, object {number}", row


def _answer(row: dict[str, Any], where: str) -> str:
    """The answer as text: a whole number given as 27.0 is "27". A problem whose answer the file leaves empty (four of
    DeepScaleR's) keeps an empty one, which no verifier can read: it is counted there, and nothing is trained on it."""
    answer = row.get("answer")
    if isinstance(answer, (int, float)):
        return str(int(answer)) if float(answer).is_integer() else str(answer)
    if not answer and (found := boxed(str(row.get("solution", "")))):
        answer = found
    if answer is None and "answer" in row:
        answer = ""
    if not isinstance(answer, str):
        raise ImprintError(f"{where}: found no answer; write `answer`, or a `solution` that ends in \\boxed{{}}")
    return answer.strip()
