"""GPQA (arXiv 2311.12022): questions of biology, chemistry and physics with four options, in a seeded order. Its
authors ask that no example be published where crawlers find it, so the source is gated, and the report shows none.

A row asks "QUESTION", "A. ..." to "D. ...", and for the letter; reference {"options": [text], "answer": index}. In
three rows of GPQA-Diamond two options have the same text; these rows stay as published.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from pydantic import Field

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.scoring.option_sets import LETTERS

RIGHT = "Correct Answer"
OPTIONS = (RIGHT, "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
STRATA = {"High-level domain": "domain", "Subdomain": "subdomain"}
DEMAND = "Which option is right? Give its letter."


class Settings(Strict):
    seed: int = Field(0, description="of the order of a question's options")


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """One row a question. The order of its options depends on the seed and the question, not on the file's order."""
    for _, path in sorted(paths.items()):
        try:
            with path.open(encoding="utf-8", newline="") as handle:
                table = list(csv.DictReader(handle))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ImprintError(f"{path} cannot be read as CSV ({error}); delete it and run again") from error
        for number, row in enumerate(table, 1):
            texts = {key: (row.get(key) or "").strip() for key in ("Question", *OPTIONS)}
            if empty := [key for key, text in texts.items() if not text]:
                raise ImprintError(f"{path}, row {number}: has no '{empty[0]}'; take the file of the gated source")
            order = list(OPTIONS)
            Random(f"gpqa {settings.seed} {texts['Question']}").shuffle(order)
            options = [texts[key] for key in order]
            listed = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))
            yield {
                "messages": [{"role": "user", "content": f"{texts['Question']}\n\n{listed}\n\n{DEMAND}"}],
                "reference": {"options": options, "answer": order.index(RIGHT)},
                "fields": {},
                "strata": {name: row[key] for key, name in STRATA.items() if row.get(key)},
            }
