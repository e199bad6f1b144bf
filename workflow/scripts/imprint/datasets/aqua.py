"""AQuA (arXiv 1705.04146): algebra with five options, lines of {"question", "options": ["A)21", "B)21.5", ...],
"rationale", "correct": "B"}."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.datasets import _multiple_choice
from imprint.datasets.jsonl import lines
from imprint.runtime.errors import ImprintError
from imprint.scoring.option_sets import LETTERS

OPTION = re.compile(r"([A-Z])\)\s*(\S.*)", re.DOTALL)


class Settings(_multiple_choice.Listed):
    """How a question is asked."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """The questions, with their options in the published order ("E)None of these" is last); fields {"solution"}."""
    for _, path in sorted(paths.items()):
        for where, row in lines(path):
            question, solution, options = row.get("question"), row.get("rationale", ""), row.get("options")
            if not isinstance(question, str) or not question.strip() or not isinstance(solution, str):
                raise ImprintError(f"{where}: found the keys {sorted(row)}; write texts for question and rationale")
            matches = [OPTION.fullmatch(str(option)) for option in options] if isinstance(options, list) else []
            labels = [match[1] if match else "" for match in matches]
            if len(labels) < 2 or labels != list(LETTERS[: len(labels)]):
                raise ImprintError(f"{where}, options: found {options!r:.80}; write ['A)...', 'B)...'] and so on")
            if row.get("correct") not in labels:
                raise ImprintError(
                    f"{where}, correct: found {row.get('correct')!r:.40}; write one of {', '.join(labels)}"
                )
            texts = [match[2].strip() for match in matches if match]
            yield {
                **_multiple_choice.row(settings, question.strip(), texts, labels.index(row["correct"])),
                "fields": {"solution": solution},
                "strata": {},
            }
