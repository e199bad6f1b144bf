"""CommonsenseQA (arXiv 1811.00937): lines of {"answerKey": "B", "question": {"stem", "question_concept", "choices":
[{"label", "text"}]}}. The labels of its test part are not public, so evals take the part `dev`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.datasets import _multiple_choice
from imprint.datasets.jsonl import lines
from imprint.runtime.errors import ImprintError
from imprint.scoring.option_sets import LETTERS


class Settings(_multiple_choice.Listed):
    """How a question is asked."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """The questions, with their options in the published order. Questions that were written about one concept of
    ConceptNet are a cluster."""
    for _, path in sorted(paths.items()):
        for where, row in lines(path):
            question = row.get("question")
            if not isinstance(question, dict):
                raise ImprintError(f"{where}, question: found {question!r:.80}; write an object with stem and choices")
            stem, concept = question.get("stem"), question.get("question_concept")
            if not all(isinstance(text, str) and text.strip() for text in (stem, concept)):
                raise ImprintError(
                    f"{where}: found the keys {sorted(question)}; write texts for stem and question_concept"
                )
            labels, texts = _choices(question.get("choices"), where)
            if row.get("answerKey") not in labels:
                raise ImprintError(
                    f"{where}, answerKey: found {row.get('answerKey')!r:.40}; write one of {', '.join(labels)}, or "
                    "take a part whose labels are public"
                )
            yield {
                **_multiple_choice.row(settings, str(stem).strip(), texts, labels.index(row["answerKey"])),
                "fields": {},
                "strata": {},
                "cluster": concept,
            }


def _choices(choices: Any, where: str) -> tuple[list[str], list[str]]:
    """Labels and texts of the options."""
    if not isinstance(choices, list) or not all(
        isinstance(choice, dict) and all(isinstance(choice.get(key), str) for key in ("label", "text"))
        for choice in choices
    ):
        raise ImprintError(f'{where}, choices: found {choices!r:.80}; write a list of {{"label", "text"}}')
    labels = [choice["label"] for choice in choices]
    if labels != list(LETTERS[: len(labels)]) or len(labels) < 2:
        raise ImprintError(f"{where}, choices: found the labels {labels!r:.80}; write A, B and so on")
    return labels, [choice["text"].strip() for choice in choices]
