"""Leakage is judged by content, not by name: a training set that shares a row with an eval is an error.

Two rows share content if they have a user turn in common, in small letters and without punctuation; rows of plain text
are compared by their text. This job compares the prepared rows. `imprint/dag/leakage.py` compares, before the first
job, the rows that can be read without the network."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.tables import dataset_rows

SHORT = 4  # a turn of fewer words, such as "go on", is compared only if it is the row's only turn


class Pair(Strict):
    """A dataset that an arm is trained on and an eval: their names, and the files of both datasets."""

    arm: str
    dataset: str
    train: str
    transductive: bool
    eval: str
    held_out: str


class Spec(Strict):
    """Which datasets are compared with which evals."""

    pairs: list[Pair]


def keys(row: dict[str, Any]) -> set[str]:
    """The normalised texts by which a row is compared."""
    turns = [message["content"] for message in row["messages"] if message["role"] == "user"]
    options = (row.get("reference") or {}).get("options")
    texts = turns or [str(text) for text in (options if isinstance(options, list) else [])]
    normal = [" ".join(re.findall(r"\w+", text.casefold())) for text in texts]
    return {text for text in normal if len(normal) == 1 or len(text.split()) >= SHORT}


def shared(train: Iterable[dict[str, Any]], held_out: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of an eval that share content with a training set."""
    train_keys = {key for row in train for key in keys(row)}
    return [row for row in held_out if train_keys & keys(row)]


def message(arm: str, dataset: str, ev: str, rows: list[dict[str, Any]]) -> str:
    """The error message about a training set that overlaps an eval."""
    first = next((m["content"] for m in rows[0]["messages"] if m["role"] == "user"), "")
    return (
        f"arms.{arm}: trains on '{dataset}', which shares {len(rows)} row(s) with the eval '{ev}' "
        f"(such as {first!r:.70}); take other rows for one of them (another seed, part or dataset), or write "
        "`transductive: true` on the arm if it may see them"
    )


def run(spec: Spec, out: Path) -> None:
    """Write the contamination table. Raises ImprintError if a pair overlaps and its arm is not transductive."""
    cache: dict[str, list[dict[str, Any]]] = {}
    rows, problems = [], []
    for pair in spec.pairs:
        for path in (pair.train, pair.held_out):
            if path not in cache:
                cache[path] = dataset_rows.read(Path(path))
        overlap = shared(cache[pair.train], cache[pair.held_out])
        if overlap and not pair.transductive:
            problems.append(message(pair.arm, pair.dataset, pair.eval, overlap))
        sizes = {"n_train": len(cache[pair.train]), "n_eval": len(cache[pair.held_out]), "n_shared": len(overlap)}
        rows.append({"arm": pair.arm, "dataset": pair.dataset, "eval": pair.eval, **sizes})
    if problems:
        raise ImprintError("\n".join(problems))
    parquet.write(out, "contamination", rows)
