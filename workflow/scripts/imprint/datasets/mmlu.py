"""MMLU (arXiv 2009.03300): questions of 57 subjects with four options. One CSV file a subject, with the columns
question, choice0 to choice3 and answer (0 to 3); the file's name without its last `_part` is the subject.

The authors' own files have no header and answers A to D. The catalog's copy has both changed, and holds the same
14,042 questions of `test` and 285 of `dev`. The options stay in the published order, since some name others ("both A
and B"). Example: the file `anatomy_test.csv` gives rows of the stratum {"subject": "anatomy"}.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from imprint.datasets import _multiple_choice
from imprint.datasets._files import csv_rows
from imprint.runtime.errors import ImprintError

CHOICES = ("choice0", "choice1", "choice2", "choice3")
COLUMNS = ("question", *CHOICES, "answer")
PASSAGE = "This question refers to the following information."


class Settings(_multiple_choice.Listed):
    """How many questions, and how they are asked."""

    per_subject: int | None = Field(
        None,
        ge=1,
        description="at most this many questions of a subject, chosen by hash, so that fewer are a part of more; null "
        "takes all, 1,534 of professional law and 100 to 300 of most others",
    )


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """The questions, subject by subject. Questions about one passage are a cluster."""
    for name, path in sorted(paths.items()):
        subject = name.removesuffix(".csv").rpartition("_")[0]
        questions = list(csv_rows(path, COLUMNS))
        by_hash = sorted(range(len(questions)), key=lambda place: _hash(questions[place][1]))
        for place in sorted(by_hash[: settings.per_subject]):
            yield _row(settings, subject, *questions[place])


def _hash(row: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(row[column] for column in COLUMNS).encode()).hexdigest()


def _row(settings: Settings, subject: str, where: str, row: dict[str, str]) -> dict[str, Any]:
    if row["answer"] not in ("0", "1", "2", "3"):
        raise ImprintError(f"{where}, answer: found {row['answer']!r:.40}; write the index of a choice, 0 to 3")
    question = row["question"]
    passage = question.rpartition("\n")[0] if question.startswith(PASSAGE) else ""
    return {
        **_multiple_choice.row(settings, question, [row[choice] for choice in CHOICES], int(row["answer"])),
        "fields": {},
        "strata": {"subject": subject},
        **({"cluster": passage} if passage else {}),
    }
