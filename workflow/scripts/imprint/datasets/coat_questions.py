"""COAT's questions as its authors generate them (arXiv 2311.13577): a file `question_answer_database.json` of
Ayush8120/COAT-code, which is an array of records.

Example: {"question_id": 1, "concept": "cleaning", "question": "Which ...?", "options": {"A": "Broom", "B": "Cup"},
"correct_answer": "A"}. The records of tasks 1 and 2 have `context` in place of `concept`, and configurations as
options; those of task 2 have penalties too.

The question is asked in the file's words. The choices, the guidance and the demand for an answer have the words that
`coat` has: configurations are put into words, and ids and penalties are left out. The order of the choices is the
file's. Records whose `correct_answer` is null are left out, since none of their choices is right: the generator writes
4 of them among 15,816 of task 0, where it draws an object twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imprint.datasets import _coat_configs
from imprint.datasets._coat_asking import Asked, Question, row
from imprint.datasets._coat_configs import PENALTIES, Config, fail
from imprint.datasets._coat_wording import LETTERS
from imprint.runtime.errors import ImprintError
from imprint.tables import json_lines


class Settings(Asked):
    """Which task the file asks, and how its questions are put."""


def _record(record: dict[str, Any], task: str, where: str) -> Question | None:
    """The question of one record; None for a record without a right choice."""
    topic = "concept" if task in "u0" else "context"
    keys = ("question_id", topic, "question", "options", "correct_answer")
    if sorted(record) != sorted(keys):
        raise fail(where, sorted(record), f"the keys {', '.join(keys)}, which task {task} has")
    for key in (topic, "question"):
        if not isinstance(record[key], str) or not record[key].strip():
            raise fail(f"{where}, {key}", record[key], "a text")
    options, right = record["options"], record["correct_answer"]
    size = len(options) if isinstance(options, dict) else 0
    letters = LETTERS[:size]
    if size < 2 or sorted(options) != list(letters):
        raise fail(f"{where}, options", options, f"an object with 2 to {len(LETTERS)} options, from A on")
    if right is None:
        return None
    if not isinstance(right, str) or right not in tuple(letters):
        raise fail(f"{where}, correct_answer", right, "the letter of an option; it is in question_answer_database.json")
    answer = letters.index(right)
    if task in "u0":
        names = [options[letter] for letter in letters]
        if not all(isinstance(name, str) and name.strip() for name in names) or len(set(names)) < size:
            raise fail(f"{where}, options", options, "different names of objects")
        return Question(record["question"], record[topic], names, answer)
    configs = [_config(options[letter], f"{where}, option {letter}") for letter in letters]
    penalties = _penalties([options[letter] for letter in letters], f"{where}, options")
    if penalties and [sum(p) <= sum(penalties[answer]) for p in penalties].count(True) > 1:
        raise fail(f"{where}, correct_answer", right, "the letter of the one option with the least penalty")
    return Question(record["question"], record[topic], configs, answer, penalties)


def _config(option: Any, where: str) -> Config:
    extra = tuple(key for key in ("id", *PENALTIES) if isinstance(option, dict) and key in option)
    return _coat_configs.checked(option, extra, where)


def _penalties(options: list[dict[str, Any]], where: str) -> list[tuple[int, int]] | None:
    """(time, material) of each option; None if no option has them."""
    written = [[option[key] for key in PENALTIES if key in option] for option in options]
    if not any(written):
        return None
    if not all(len(pair) == 2 and all(type(part) is int and part >= 0 for part in pair) for pair in written):
        raise fail(where, written, f"{' and '.join(PENALTIES)} for each option, as whole numbers, or for none")
    return [(time, material) for time, material in written]


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """One row a record, as `_coat_asking.row` describes it. Raises ImprintError with the file and the line of a broken
    record."""
    dealing = random.Random("coat/states/0")
    for _, path in sorted(paths.items()):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ImprintError(f"{path} cannot be read as UTF-8 text ({error}); restore the file") from error
        for line, record in json_lines.array(text, str(path)):
            where = f"{path}, line {line}"
            question = _record(record, settings.task, where)
            if question is None:
                continue
            made = row(settings, question, dealing)
            if made is not None:
                yield made
            elif settings.states != "hidden":
                raise fail(f"{where}, options", record["options"], "options that differ")
