"""What a score reads of the rows that it judges, and rows that do not have it.

A score declares in its `Reference` which keys of a row's reference it reads. Rows are compared with that before the
first answer is generated: when the config is loaded, by the job that makes a dataset whose rows only it can see, and
by each job that puts a dataset to a model, since a score may have been changed after the dataset was made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imprint.runtime import parquet, plugins
from imprint.runtime.errors import ImprintError


def problem(score: str, reference: Any) -> str | None:
    """Why a score cannot judge a row with this reference; None if it can."""
    try:
        plugins.load("scores", score).Reference.model_validate({} if reference is None else reference)
    except ValidationError as error:
        first = min(error.errors(), key=lambda one: one["type"] != "missing")
        where = ".".join(map(str, ("reference", *first["loc"])))
        if first["type"] == "missing":
            return f"{where}: missing"
        wrong = "leave it out" if first["type"] == "none_required" else first["msg"].removeprefix("Value error, ")
        return f"{where}: found {first['input']!r:.80}; {wrong[0].lower()}{wrong[1:]}".replace(
            "input should be", "write"
        )
    return None


def reads(score: str) -> str:
    """The keys that a score must find in a reference, in words."""
    fields = plugins.load("scores", score).Reference.model_fields.items()
    required = [f"`{name}` ({field.description})" for name, field in fields if field.is_required()]
    return " and ".join(required) or "nothing"


def readers(reference: Any) -> list[str]:
    """The scores that read a reference and can judge it, and if there is none, those that read no reference."""
    able = [name for name in plugins.names("scores") if problem(name, reference) is None]
    return [name for name in able if reads(name) != "nothing"] or able


def refusal(score: str, dataset: str, rows: Iterable[dict[str, Any]]) -> str | None:
    """The message for the first row that a score cannot judge: what the score reads, what the row has, and what to
    write. None if it can judge all rows."""
    for number, row in enumerate(rows, 1):
        reference = row.get("reference")
        if wrong := problem(score, reference):
            keys = sorted(reference) if isinstance(reference, dict) else []
            has = f"a reference with {', '.join(keys)}" if keys else "no reference"
            return (
                f"'{score}' reads in the reference of a row {reads(score)}, but row {number} of '{dataset}' has {has} "
                f"({wrong}); write a score that reads such rows ({', '.join(readers(reference))}), or a dataset that "
                "has what this one reads"
            )
    return None


def check(scores: Iterable[str], dataset: str, rows: list[dict[str, Any]]) -> None:
    """Raise ImprintError where a score that judges the dataset cannot judge a row. `scores`: `DATASET:SCORE` of all
    datasets of the experiment."""
    for each in scores:
        judged, _, score = each.partition(":")
        if judged == dataset and (message := refusal(score, dataset, rows)):
            raise ImprintError(f"the score {message}")


def check_made(scores: Iterable[str], path: Path) -> None:
    """The same for a dataset that is there already, in the file DATASET.parquet."""
    if judging := [each for each in scores if each.startswith(f"{path.stem}:")]:
        references = parquet.read(path, "datasets")["reference"].to_pylist()
        check(judging, path.stem, [{"reference": json.loads(text)} for text in references])
