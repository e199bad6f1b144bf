"""Which example of a log belongs to which row of an eval's dataset: the one with the same question. Numbers of rows do
not count."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from imprint.imports import Log
from imprint.logs import matching
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.identity import canonical
from imprint.tables import content, dataset_rows

ABSENT = "not in the import"
"""The error of a row without a response in the log."""


class Example(NamedTuple):
    """An example of a log: its question, its right answer, and the places of its responses in the log's rows, by
    sample."""

    question: str
    reference: str | None
    places: dict[int, int]


def matched(log: Log, path: Path, dataset: Path, limit: int | None) -> Iterator[tuple[dict[str, Any], Example | None]]:
    """Each row of the dataset, at most `limit` of them, with the log's example that has its question, or None. Prints
    how many rows and examples have no partner, and names some. Raises ImprintError if more than half of the rows have
    none."""
    rows, examples = dataset_rows.read(dataset), _examples(log, path)
    rows_by_key, examples_by_key = defaultdict[str, list[Any]](list), defaultdict[str, list[Example]](list)
    for row in rows:
        rows_by_key[matching.key(content.question(row))].append(row)
    for example in examples:
        examples_by_key[matching.key(example.question)].append(example)
    partners = {
        row["example_id"]: example
        for key, rows_of_key in rows_by_key.items()
        for row, example in _pairs(rows_of_key, examples_by_key.get(key, []))
    }
    _report(path, dataset, rows, examples, partners)
    for row in dataset_rows.read(dataset, limit):
        yield row, partners.get(row["example_id"])


def _examples(log: Log, path: Path) -> list[Example]:
    """The examples of a log of one run. Raises ImprintError for a log of several."""
    if log.samples["seed"].n_unique() > 1:
        raise ImprintError(f"{path}: holds several seeds; write a log of one run")
    examples: dict[tuple[str, str | None], Example] = {}
    columns = log.samples.select("question", "detail", "reference", "sample").iter_rows()
    for place, (question, detail, reference, sample) in enumerate(columns):
        examples.setdefault((question, detail), Example(question, reference, {})).places.setdefault(sample, place)
    return list(examples.values())


def _pairs(rows: list[dict[str, Any]], examples: list[Example]) -> Iterator[tuple[dict[str, Any], Example]]:
    """The rows and examples of one question, joined. Where the right answers of the rows differ, an example belongs to
    the row that has the example's right answer."""
    references = [_references(row) for row in rows]
    if all(texts == references[0] for texts in references):
        yield from zip(rows, examples, strict=False)
        return
    unused = list(examples)
    for row, texts in zip(rows, references, strict=True):
        if (example := next((candidate for candidate in unused if candidate.reference in texts), None)) is not None:
            unused.remove(example)
            yield row, example


def _references(row: dict[str, Any]) -> set[str]:
    """The forms in which a log may have the right answer of a row."""
    reference = row["reference"]
    return {canonical(reference)} | ({str(reference["answer"])} if "answer" in (reference or {}) else set())


def _report(
    path: Path, dataset: Path, rows: list[dict[str, Any]], examples: list[Example], partners: dict[str, Example]
) -> None:
    missing = [content.question(row) for row in rows if row["example_id"] not in partners]
    used = {id(example) for example in partners.values()}
    unused = [example.question for example in examples if id(example) not in used]
    if len(partners) < matching.LEAST * len(rows):
        found = f"{path}: has {len(partners)} of the {len(rows)} questions of {dataset}"
        if not unused:
            raise ImprintError(
                f"{found}, and no others. So it is a log of a part, as lm-eval's `--limit` makes it; log the whole "
                "eval, or give the eval a dataset that has the rows of the log alone"
            )
        raise ImprintError(
            f"{found}. The dataset asks, for example,\n  {missing[0]!r:.200}\nand the log\n  {unused[0]!r:.200}\n"
            "Name the field of the log that holds the question (`question: FIELD`), or another eval"
        )
    print(shown(f"{path}: has {len(partners)} of the {len(rows)} rows of {dataset}"), file=sys.stderr)
    for texts, what in (
        (missing, f"rows of {dataset} are not in it"),
        (unused, f"of its examples are not in {dataset}"),
    ):
        if texts:
            named = "; ".join(f"{text!r:.80}" for text in texts[: matching.NAMED])
            print(shown(f"{path}: {len(texts)} {what}: {named}"), file=sys.stderr)
