"""Asking an engine so that a killed job goes on: the batches of one round are a fixed function of what is asked, each
is written to a shard when it is done, and a shard that is there is not asked again.

A batch that was broken off is redone whole, because in bf16 the text depends on the batch. So a resumed run says the
same as an unbroken one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imprint.engines import Candidates, Prompt, Response
from imprint.errors import shown
from imprint.identity import atomic, canonical

SCHEMA = pa.schema(
    [
        ("asked", pa.int64()),  # index into what was asked
        ("asked_sha256", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("response_tokens", pa.int64()),
        ("logprob_sum", pa.float64()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
    ]
)


def answer(
    engine: Any,
    asked: Sequence[Prompt] | Sequence[Candidates],
    folder: Path,
    done: Callable[[int], object] = lambda count: None,
) -> list[list[Response]]:
    """Responses to what is asked, in its order: one each for prompts, one per continuation (or a single error) for
    candidates. Shards are kept in `folder`, which belongs to this round; `done` hears how many were answered."""
    lengths = [len(engine.tokens(one.text, one.breaks)) for one in asked]
    order = sorted(range(len(asked)), key=lambda i: (-lengths[i], i))
    answers: list[list[Response]] = [[] for _ in asked]
    for number, start in enumerate(range(0, len(order), engine.batch_size)):
        batch = order[start : start + engine.batch_size]
        some = [asked[i] for i in batch]
        path = folder / f"{number:05d}.parquet"
        found = _read(path, batch, some)
        if found is None:
            if isinstance(some[0], Candidates):
                found = engine.loglikelihood(some)
            else:
                found = [[response] for response in engine.generate(some)]
            _write(path, batch, some, found)
        for i, responses in zip(batch, found, strict=True):
            answers[i] = responses
        done(len(batch))
    return answers


def _sha256(one: Any) -> str:
    asked = dataclasses.asdict(one)
    if not asked["breaks"]:
        del asked["breaks"]  # a prompt without any has the sum that it had before there were breaks
    return hashlib.sha256(canonical(asked).encode()).hexdigest()


def _write(path: Path, batch: list[int], asked: Sequence[Any], found: list[list[Response]]) -> None:
    rows = [
        {"asked": i, "asked_sha256": _sha256(one), **dataclasses.asdict(response)}
        for i, one, responses in zip(batch, asked, found, strict=True)
        for response in responses
    ]
    with atomic(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)


def _read(path: Path, batch: list[int], asked: Sequence[Any]) -> list[list[Response]] | None:
    """The responses in a shard, or None where it has to be made: it is not there, or broken, or answers something
    else. A shard that is thrown away is named, since that should not happen."""
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, partitioning=None)
        if table.schema.names != SCHEMA.names:
            raise ValueError("other columns")
        found: dict[int, list[Response]] = {i: [] for i in batch}
        sums = {i: _sha256(one) for i, one in zip(batch, asked, strict=True)}
        for row in table.to_pylist():
            i = row.pop("asked")
            if sums.get(i) != row.pop("asked_sha256"):
                raise ValueError("it answers other prompts")
            found[i].append(Response(**row))
        if not all(found.values()):
            raise ValueError("answers are missing")
    except (OSError, ValueError, pa.ArrowException) as error:
        print(shown(f"imprint: {path} cannot be used ({error}); this batch is asked again"), file=sys.stderr)
        return None
    return [found[i] for i in batch]
