"""TruthfulQA (arXiv 2109.07958) as multiple choice: the best answer against every incorrect answer of the question.

This is MC1 in the form that follows from `TruthfulQA.csv`, the 817 questions before the revision of 2025. The authors'
own multiple-choice file (`mc_task.json`, the source of lm-evaluation-harness's `truthfulqa_mc1`) was made from other
lists of answers and is not read here, so numbers of the two are not those of one test. A question has 2 to 13 options;
accuracy by chance is 0.22. The best answer comes first in the file, so the options are shuffled.

MC1 compares the likelihood of the answers' texts: `listed: false` with `score: options`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.datasets import _multiple_choice
from imprint.datasets._files import csv_rows
from imprint.runtime.errors import ImprintError

COLUMNS = ("Type", "Category", "Question", "Best Answer", "Incorrect Answers")


class Settings(_multiple_choice.Shuffled):
    """How a question is asked."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """One row a question; strata {"category", "type"}, where the type says whether the question was kept because it
    misled a model."""
    for _, path in sorted(paths.items()):
        for where, row in csv_rows(path, COLUMNS):
            best = row["Best Answer"]
            wrong = list(dict.fromkeys(filter(None, map(str.strip, row["Incorrect Answers"].split(";")))))
            if not wrong or best in wrong:
                raise ImprintError(
                    f"{where}, Incorrect Answers: found {row['Incorrect Answers']!r:.80}; write answers between ';' "
                    "that are not the best one"
                )
            options = _multiple_choice.shuffled(settings.seed, row["Question"], [best, *wrong])
            yield {
                **_multiple_choice.row(settings, row["Question"], options, options.index(best)),
                "fields": {},
                "strata": {"category": row["Category"], "type": row["Type"]},
            }
