"""Multiple-choice tasks in BIG-bench's form (arXiv 2206.04615): a JSON object whose `examples` are {"input",
"target_scores": {option: 1 or 0}}. So stand date understanding, object tracking and StrategyQA (arXiv 2101.02235) here.

The file of date understanding has the right option first in 364 of 369 examples. So the options are shuffled, by a seed
and the question. BIG-bench asks that its tasks be in no training data: mark such an entry `evaluation_only`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.datasets import _multiple_choice
from imprint.datasets._files import json_objects
from imprint.runtime.errors import ImprintError
from imprint.scoring.option_sets import LETTERS

SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Settings(_multiple_choice.Shuffled):
    """How a question is asked."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """One row an example. Examples with the same sentences before the last one are a cluster: they ask several things
    about one story."""
    for _, path in sorted(paths.items()):
        for where, example in json_objects(path, "examples"):
            question, scores = example.get("input"), example.get("target_scores")
            if not isinstance(question, str) or not question.strip():
                raise ImprintError(f"{where}: found the keys {sorted(example)}; write a text for `input`")
            if (
                not isinstance(scores, dict)
                or not 2 <= len(scores) <= len(LETTERS)
                or sorted(map(repr, scores.values())) != ["0"] * (len(scores) - 1) + ["1"]
            ):
                raise ImprintError(
                    f"{where}, target_scores: found {scores!r:.120}; write one option with 1, others with 0"
                )
            question = question.strip()
            options = _multiple_choice.shuffled(settings.seed, question, list(scores))
            story = SENTENCE.split(question)[:-1]
            yield {
                **_multiple_choice.row(settings, question, options, options.index(max(scores, key=scores.__getitem__))),
                "fields": {},
                "strata": {},
                **({"cluster": " ".join(story)} if story else {}),
            }
