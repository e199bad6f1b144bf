r"""Questions of mathematics with a short answer, such as MATH-500 (arXiv 2305.20050), AIME 2024, AMC 2023, and the
training problems of DeepScaleR. A file holds {"problem", "answer"}, or {"problem", "solution"} with a solution that
ends in \boxed{}: one object a line (.jsonl), or a list of objects (.json).

Example: {"problem": "Find $1+1$.", "solution": "\\boxed{2}"} has the reference {"answer": "2"}.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.datasets._files import json_objects
from imprint.datasets.jsonl import lines
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.scoring.forms import boxed


class Settings(Strict):
    """Nothing to set."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """The problem without outer spaces; reference {"answer": text}; strata {"subject", "level"} if the file has
    them."""
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
    return lines(path) if path.suffix != ".json" else json_objects(path)


def _answer(row: dict[str, Any], where: str) -> str:
    """The answer as text; the number 27.0 becomes "27". A file may leave an answer empty (DeepScaleR's does so in four
    rows). It stays empty: no verifier can read it, so an eval counts the row, and no fit is rewarded on it."""
    answer = row.get("answer")
    if isinstance(answer, (int, float)):
        return str(int(answer)) if float(answer).is_integer() else str(answer)
    if not answer and (in_box := boxed(str(row.get("solution", "")))):
        answer = in_box
    if answer is None and "answer" in row:
        answer = ""
    if not isinstance(answer, str):
        raise ImprintError(f"{where}: found no answer; write `answer`, or a `solution` that ends in \\boxed{{}}")
    return answer.strip()
