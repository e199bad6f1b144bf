"""Leakage is judged by content, not by name: a training set that holds an example of an eval is an error.

`content` says which texts of a row are compared, and `overlap` what counts as held. This job compares the prepared
rows. `imprint/dag/leakage.py` compares, before the first job, the rows that can be read without the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.tables import content, dataset_rows, overlap
from imprint.tables.overlap import Match

TOLD = 3  # matches that an error message names


class Pair(Strict):
    """A dataset that an arm is trained on and an eval: their names, and the files of both datasets. `near`: near copies
    count too."""

    arm: str
    dataset: str
    train: str
    transductive: bool
    eval: str
    held_out: str
    near: bool


class Spec(Strict):
    """Which datasets are compared with which evals."""

    pairs: list[Pair]


def shared(train: Iterable[dict[str, Any]], held_out: Iterable[dict[str, Any]], near: bool = True) -> list[Match]:
    """The rows of an eval that a training set also holds; without `near`, only word for word. Rows have ids."""
    return overlap.matches(
        ((row["example_id"], content.trained_on(row)) for row in train),
        ((row["example_id"], content.held_out(row)) for row in held_out),
        near,
    )


def without(
    train: Sequence[dict[str, Any]], held_out: Mapping[str, Sequence[dict[str, Any]]]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows of `train` that share nothing with the datasets `held_out`, and for each other row its id -> the dataset
    that it is left out for. `shared` names one row for each example, and with fewer rows the words of the others weigh
    more. So the rows that are left are compared again, until nothing is found."""
    left, dropped = list(train), dict[str, str]()
    texts = {row["example_id"]: frozenset(content.trained_on(row)) for row in train}
    while found := {match.train_example_id: name for name, rows in held_out.items() for match in shared(left, rows)}:
        # Copies of a found row go with it: `shared` would name them one by one.
        copied = {texts[example_id]: name for example_id, name in found.items()}
        dropped |= {row_id: copied[texts[row_id]] for row_id in texts if texts[row_id] in copied}
        left = [row for row in left if row["example_id"] not in dropped]
    return left, dropped


def message(arm: str, dataset: str, ev: str, held_out: Iterable[dict[str, Any]], matches: Sequence[Match]) -> str:
    """The error message about a training set that overlaps an eval. `held_out`: the eval's rows."""
    rows = {row["example_id"]: row for row in held_out}
    n_equal = sum(match.equal for match in matches)
    told = [
        f"{match.example_id} ({_beginning(rows[match.example_id])!r:.70}) in {match.train_example_id}"
        + ("" if match.equal else f" to {match.overlap:.0%}")
        for match in matches[:TOLD]
    ]
    more = ["..."] if len(matches) > TOLD else []
    return (
        f"arms.{arm}: trains on '{dataset}', which shares {len(matches)} row(s) with the eval '{ev}', {n_equal} word "
        f"for word and {len(matches) - n_equal} as a near copy: {', '.join([*told, *more])}; take other rows for one "
        "of them (another seed, part or dataset), leave these rows out (`synth: without`), or write "
        "`transductive: true` on the arm if it may see them"
    )


def _beginning(row: dict[str, Any]) -> str:
    """The first turn of the user, empty where there is none."""
    return next((turn["content"] for turn in row["messages"] if turn["role"] == "user"), "")


def run(spec: Spec, contamination: Path, contamination_rows: Path) -> None:
    """Write the tables `contamination` and `contamination_rows`. Raises ImprintError if a pair overlaps and its arm is
    not transductive."""

    @cache
    def rows_of(path: str) -> list[dict[str, Any]]:
        return dataset_rows.read(Path(path))

    @cache
    def compared(train: str, held_out: str, near: bool) -> list[Match]:
        return shared(rows_of(train), rows_of(held_out), near)

    pairs, rows, problems = [], [], []
    for pair in spec.pairs:
        train, held_out = rows_of(pair.train), rows_of(pair.held_out)
        matches = compared(pair.train, pair.held_out, pair.near)
        if matches and not pair.transductive:
            problems.append(message(pair.arm, pair.dataset, pair.eval, held_out, matches))
        names = {"arm": pair.arm, "dataset": pair.dataset, "eval": pair.eval}
        n_equal = sum(match.equal for match in matches)
        sizes = {"n_train": len(train), "n_eval": len(held_out), "n_shared": n_equal, "n_near": len(matches) - n_equal}
        pairs.append({**names, **sizes})
        rows += [{**names, **match._asdict()} for match in matches]
    if problems:
        raise ImprintError("\n".join(problems))
    parquet.write(contamination, "contamination", pairs)
    parquet.write(contamination_rows, "contamination_rows", rows)
