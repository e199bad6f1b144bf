"""Tables of your own and of the hub: Parquet, CSV, TSV, JSON lines or a JSON array; `columns` says what their columns
hold.

    {file: data/alpaca.csv, columns: {messages: {user: [instruction, input], assistant: output}}}
    {file: data/sums.tsv, columns: {messages: {user: question}, reference: {answer: result}, cluster: template}}
    {file: data/quiz.parquet, columns: {messages: {user: question}, reference: {options: choices, answer: label}}}
    {file: data/pairs.parquet, columns: {messages: chosen, rejected: rejected}}

docs/data.md has more. Nothing in a table is evaluated, and no text of a table is used as a template.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from imprint.datasets import _multiple_choice
from imprint.datasets._table_files import in_json, listed, records
from imprint.datasets._turns import Message, conversation
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.scoring.option_sets import LETTERS

Column = Annotated[str, StringConstraints(min_length=1)]
TURNS = ("system", "user", "assistant")


class Turns(Strict):
    """A column for each turn. Of several columns, the texts that are not blank are joined by a blank line."""

    system: Column | list[Column] | None = Field(
        None, description="the system prompt; left out of rows where it is blank"
    )
    user: Column | list[Column] | None = Field(None, description="what the user says")
    assistant: Column | list[Column] | None = Field(None, description="the answer to be learned")

    def used(self) -> dict[str, list[str]]:
        """Role -> its columns, in the order of the turns."""
        columns = {"system": self.system, "user": self.user, "assistant": self.assistant}
        return {role: _all(columns[role]) for role in TURNS if columns[role]}


class Columns(Strict):
    """What the columns of a table hold."""

    messages: Column | Turns | None = Field(
        None,
        description="the turns: a column for each, such as {user: instruction, assistant: output} or "
        "{user: [instruction, input], assistant: output}, or one column with whole conversations. Rows of plain text "
        "have none: they write `reference: {options: [COLUMN]}`",
    )
    rejected: Column | None = Field(
        None,
        description="of preference pairs, the answer that was not preferred, or the whole conversation that ends with "
        "it; `messages` end with the preferred one. It becomes the field `rejected`",
    )
    reference: dict[str, Column | list[Column]] = Field(
        {},
        description="what scores read: {answer: COLUMN}; of multiple choice {options: COLUMN, answer: COLUMN}, where "
        "`options` is a column with lists, or a list of columns with one option each, and the answer is the index of "
        "an option from 0, its letter, or its text",
    )
    fields: dict[str, Column] = Field({}, description="name -> column, for contexts, methods and scores that read it")
    strata: dict[str, Column] = Field({}, description="name -> column, for results by group")
    cluster: Column | None = Field(
        None, description="a column whose value is the same in rows that depend on each other, such as a document"
    )

    @model_validator(mode="after")
    def _makes_rows(self) -> Columns:
        if self.messages is None and "options" not in self.reference:
            raise ValueError(
                "found no messages; write `messages: {user: COLUMN}`, or of plain text `reference: {options: [COLUMN]}`"
            )
        if isinstance(self.messages, Turns) and not self.messages.used():
            raise ValueError("messages: found no turn; write `{user: COLUMN}`")
        if several := [key for key, column in self.reference.items() if key != "options" and isinstance(column, list)]:
            raise ValueError(f"reference.{several[0]}: found a list; write one column")
        if "rejected" in self.fields:
            raise ValueError("fields.rejected: write `rejected: COLUMN` beside `messages`")
        if self.rejected and not (isinstance(self.messages, str) or (self.messages and self.messages.assistant)):
            raise ValueError("rejected: `messages` must end with the preferred answer; write `assistant: COLUMN` too")
        return self

    def names(self) -> list[str]:
        """All columns that are read."""
        turns = self.messages.used().values() if isinstance(self.messages, Turns) else [_all(self.messages)]
        others = [self.rejected, self.cluster, *self.reference.values(), *self.fields.values(), *self.strata.values()]
        return list(dict.fromkeys(name for columns in (*turns, *map(_all, others)) for name in columns))


class Settings(_multiple_choice.Listed):
    """What the table's columns hold, and how a question with options is asked."""

    columns: Columns = Field(description="what the columns hold, as the section `datasets: columns` says")


def _all(columns: str | list[str] | None) -> list[str]:
    return columns if isinstance(columns, list) else [columns] if columns else []


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """The rows of all files, by file name. Raises ImprintError with the file, the row and the column of a value that is
    not what the mapping says."""
    for _, path in sorted(paths.items()):
        for where, values in records(path, settings.columns.names()):
            try:
                yield _Row(where, values).mapped(settings)
            except RecursionError:
                raise ImprintError(f"{where}: holds lists in lists without end; leave the column out") from None


class _Row:
    """A row of a table: its place, for messages, and the values of its columns."""

    def __init__(self, where: str, values: dict[str, Any]) -> None:
        self.where, self.values = where, values

    def mapped(self, settings: Settings) -> dict[str, Any]:
        """The row as `tables.dataset_rows` describes it."""
        columns = settings.columns
        messages = self.messages(columns.messages)
        fields = {name: self.plain(column) for name, column in columns.fields.items()}
        if columns.rejected:
            fields["rejected"] = self.rejected(columns.rejected, messages, isinstance(columns.messages, str))
        reference: dict[str, Any] = {}
        if "options" in columns.reference:
            reference = self.options(columns.reference)
            if "answer" in reference:
                _list_options(settings, messages, reference)
        elif "answer" in columns.reference:
            reference["answer"] = self.text(str(columns.reference["answer"]))
        for key, column in columns.reference.items():
            if key not in ("options", "answer"):
                reference[key] = self.plain(str(column))
        cluster = {"cluster": self.text(columns.cluster)} if columns.cluster else {}
        strata = {name: self.plain(column) for name, column in columns.strata.items()}
        return {"messages": messages, "reference": reference or None, "fields": fields, "strata": strata, **cluster}

    def messages(self, mapping: str | Turns | None) -> list[Message]:
        """The turns of the dialogue."""
        if isinstance(mapping, str):
            return conversation(self.values[mapping], self.at(mapping))
        messages = []
        for role, columns in (mapping.used() if mapping else {}).items():
            parts = [self.text(column, may_be_blank=len(columns) > 1 or role == "system") for column in columns]
            content = "\n\n".join(part for part in parts if part.strip())
            if content:
                messages.append({"role": role, "content": content})
            elif role != "system":
                raise ImprintError(
                    f"{self.at(', '.join(columns))}: all blank; write what the {role} says into one of them"
                )
        return messages

    def rejected(self, column: str, messages: list[Message], of_conversations: bool) -> str:
        """The answer that was not preferred. A conversation has the same turns before it as `messages`."""
        where, value = self.at(column), self.values[column]
        if messages[-1]["role"] != "assistant":
            raise ImprintError(
                f"{where}: `messages` end with a turn of the {messages[-1]['role']}; a pair of answers ends them"
            )
        if not of_conversations and isinstance(value, str):
            return self.text(column)
        *before, last = conversation(value, where)
        if last["role"] != "assistant" or before != messages[:-1]:
            raise ImprintError(
                f"{where}: the conversation differs from `messages` before its last answer, so the two answers are no "
                "pair; leave the row out of the table"
            )
        return last["content"]

    def options(self, mapping: dict[str, Any]) -> dict[str, Any]:
        """The options, and the index of the right one if a column has it."""
        columns = mapping["options"]
        if isinstance(columns, list):
            texts = [self.text(column) for column in columns]
        else:
            value = _plain(listed(self.values[columns], self.at(columns)), self.at(columns))
            if not isinstance(value, list) or not value or not all(_is_text(part) for part in value):
                raise ImprintError(f"{self.at(columns)}: found {in_json(value)}; write a list of texts, one an option")
            texts = [_text(part) for part in value]
        return {"options": texts} | ({"answer": self.index(mapping["answer"], texts)} if "answer" in mapping else {})

    def index(self, column: str, options: list[str]) -> int:
        """The index of the right option, which the column names by index, letter or text. Raises ImprintError if it
        names none, or if it can be read in two ways."""
        value = self.values[column]
        if isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0:
            readings = {int(value)}
        else:
            label = value.strip() if isinstance(value, str) else ""
            readings = {place for place, text in enumerate(options) if text.strip() == label}
            readings |= {LETTERS.index(label.upper())} if len(label) == 1 and label.upper() in LETTERS else set()
            readings |= {int(label)} if label.isdecimal() and len(label) < 3 else set()
        fitting = sorted(place for place in readings if 0 <= place < len(options))
        if len(fitting) == 1:
            return fitting[0]
        problem = (
            f"can name the options {' and '.join(map(str, fitting))}"
            if fitting
            else f"names none of {len(options)} options"
        )
        raise ImprintError(
            f"{self.at(column)}: {in_json(value)} {problem}; write the index of the right one, a number from 0 to "
            f"{len(options) - 1}, its letter, or its text"
        )

    def text(self, column: str, may_be_blank: bool = False) -> str:
        """The text of a value: numbers, true and false are written as in JSON, and null is blank."""
        value = self.plain(column)
        if not (value is None or _is_text(value)) or (not may_be_blank and (value is None or not _text(value).strip())):
            raise ImprintError(
                f"{self.at(column)}: found {in_json(value)}; write a text{'' if may_be_blank else ' that is not blank'}"
            )
        return "" if value is None else _text(value)

    def plain(self, column: str) -> Any:
        """A value as plain JSON."""
        return _plain(self.values[column], self.at(column))

    def at(self, column: str) -> str:
        return f"{self.where}, column '{column}'"


def _list_options(settings: Settings, messages: list[Message], reference: dict[str, Any]) -> None:
    """Ask the user's last turn as other sets of questions with options are asked, in place."""
    asked = [message for message in messages if message["role"] == "user"]
    if asked and settings.listed:
        row = _multiple_choice.row(settings, asked[-1]["content"], reference["options"], reference["answer"])
        asked[-1]["content"] = row["messages"][0]["content"]
        reference.update(row["reference"])


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _text(value: Any) -> str:
    """A scalar as text: true and false as in JSON; numbers without an exponent, since "1e-05" ends in another one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return format(Decimal(str(value)), "f") if isinstance(value, float) else str(value)


def _plain(value: Any, where: str) -> Any:
    """The value as plain JSON: dates in ISO 8601, decimal numbers as text. Raises ImprintError for any other kind."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, list):
        return [_plain(part, where) for part in value]
    if isinstance(value, dict):
        return {str(key): _plain(part, where) for key, part in value.items()}
    raise ImprintError(
        f"{where}: found {value!r:.40}, which JSON cannot hold; write a text or a finite number, or null"
    )
