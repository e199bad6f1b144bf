"""Rows of datasets: their ids, their clusters, which of them a `limit` keeps, and their JSON columns.

A row in Python is `{"example_id", "messages": [{"role", "content"}], "reference", "fields": {}, "strata": {},
"cluster"}`; on disk `reference`, `fields` and `strata` are JSON text.

Rows with the same `cluster`, a text, depend on each other, such as questions made from one template. The statistics
take clusters as their sample, not rows.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imprint.runtime import parquet
from imprint.runtime.identity import canonical


def ids(contents: Iterable[Any]) -> list[str]:
    """An id for each content: 16 hex digits of the sha256 of its canonical JSON, "-", and how often the same content
    came before (public sets hold duplicates)."""
    seen: Counter[str] = Counter()
    ids = []
    for content in contents:
        digest = hashlib.sha256(canonical(content).encode()).hexdigest()[:16]
        ids.append(f"{digest}-{seen[digest]}")
        seen[digest] += 1
    return ids


def cluster(example_id: str) -> str:
    """The cluster of a row that names none: rows with the same content are one cluster."""
    return example_id.split("-")[0]


def identified(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with ids. A row without an `example_id` gets one from its messages and reference. `fields` and `strata` do
    not enter the id, so a row keeps its id when a role prompt is added to its fields."""
    rows = list(rows)
    new_ids = ids({"messages": row["messages"], "reference": row.get("reference")} for row in rows)
    return [{**row, "example_id": row.get("example_id") or new_id} for row, new_id in zip(rows, new_ids, strict=True)]


def write(path: Path, dataset: str, rows: Iterable[dict[str, Any]], source_sha256: str) -> None:
    """Write dataset rows, `identified`. A row without a `cluster` gets one from its id."""
    parquet.write(
        path,
        "datasets",
        [
            {
                "dataset": dataset,
                "example_id": row["example_id"],
                "messages": row["messages"],
                "reference": canonical(row.get("reference")),
                "fields": canonical(row.get("fields") or {}),
                "strata": canonical(row.get("strata") or {}),
                "cluster": row.get("cluster") or cluster(row["example_id"]),
                "source_sha256": source_sha256,
            }
            for row in identified(rows)
        ],
    )


def read(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Dataset rows with their JSON columns decoded, in file order. `limit` keeps the rows whose ids have the smallest
    sha256, so that a smaller limit gives a subset of a larger one. Raises an error for a file that was changed."""
    rows: list[dict[str, Any]] = parquet.read(path, "datasets").to_pylist()
    if limit is not None and len(rows) > limit:
        order = sorted(rows, key=lambda row: hashlib.sha256(row["example_id"].encode()).hexdigest())
        kept_ids = {row["example_id"] for row in order[:limit]}
        rows = [row for row in rows if row["example_id"] in kept_ids]
    for row in rows:
        where = f"the row '{row['example_id']}'"
        if not all(message and None not in message.values() for message in row["messages"]):
            raise parquet.not_as_made(path, f"{where} has a message without a role or a content")
        for column in ("reference", "fields", "strata"):
            try:
                row[column] = json.loads(row[column])
            except (ValueError, RecursionError) as error:
                raise parquet.not_as_made(path, f"the column '{column}' of {where} is not JSON ({error})") from error
    return rows
