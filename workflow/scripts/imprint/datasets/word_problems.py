"""Word problems with a number as the answer: AddSub, SingleEq and MultiArith, lists of {"sQuestion", "lSolutions":
[number]}, and SVAMP (arXiv 2103.07191), a list of {"Body", "Question", "Answer": number}.

Problems that differ only in their numbers are a cluster. In SVAMP this holds for the body, of which several things are
asked. A solution stays as the file has it: AddSub has 0.6666666666666666, to which no rounded answer is equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.datasets._files import json_objects
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict

DIGITS = re.compile(r"\d+([.,]\d+)*")


class Settings(Strict):
    """Nothing to set."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """The problem; reference {"answer": "18"}; 18.0 becomes 18."""
    for _, path in sorted(paths.items()):
        for where, row in json_objects(path):
            body, question, solution = _parts(row)
            if not isinstance(question, str) or not question.strip() or not isinstance(body, str):
                raise ImprintError(
                    f"{where}: found the keys {sorted(row)}; write texts for sQuestion, or for Body and Question"
                )
            answer = str(solution).removesuffix(".0")
            if isinstance(solution, bool) or not re.fullmatch(r"-?\d+(\.\d+)?", answer):
                raise ImprintError(f"{where}: found the solution {solution!r:.40}; write one number, such as 18")
            yield {
                "messages": [{"role": "user", "content": f"{body.strip()} {question.strip()}".strip()}],
                "reference": {"answer": answer},
                "fields": {},
                "strata": {},
                "cluster": DIGITS.sub("#", body.strip() or question.strip()),
            }


def _parts(row: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Body, question and solution. The lists of AddSub, SingleEq and MultiArith hold one solution each."""
    if "sQuestion" not in row:
        return row.get("Body"), row.get("Question"), row.get("Answer")
    solutions = row.get("lSolutions")
    return "", row["sQuestion"], solutions[0] if isinstance(solutions, list) and len(solutions) == 1 else solutions
