"""GPQA (arXiv 2311.12022): questions of biology, chemistry and physics with four options, in a seeded order. Its
authors ask that no example be published where crawlers find it, so the source is gated, and the report shows none.

In three rows of GPQA-Diamond two options have the same text; these rows stay as published.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.datasets import _multiple_choice
from imprint.datasets._files import csv_rows

RIGHT = "Correct Answer"
OPTIONS = (RIGHT, "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
STRATA = {"High-level domain": "domain", "Subdomain": "subdomain"}


class Settings(_multiple_choice.Shuffled):
    """How a question is asked."""


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """One row a question."""
    for _, path in sorted(paths.items()):
        for _, row in csv_rows(path, ("Question", *OPTIONS)):
            options = _multiple_choice.shuffled(settings.seed, row["Question"], [row[key] for key in OPTIONS])
            yield {
                **_multiple_choice.row(settings, row["Question"], options, options.index(row[RIGHT])),
                "fields": {},
                "strata": {name: row[key] for key, name in STRATA.items() if row.get(key)},
            }
