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
from imprint.runtime.errors import shown
from imprint.runtime.identity import atomic, canonical

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
        places = order[start : start + engine.batch_size]
        batch = [asked[i] for i in places]
        path = folder / f"{number:05d}.parquet"
        responses = _read(path, places, batch)
        if responses is None:
            if isinstance(batch[0], Candidates):
                responses = engine.loglikelihood(batch)
            else:
                responses = [[response] for response in engine.generate(batch)]
            _write(path, places, batch, responses)
        for i, group in zip(places, responses, strict=True):
            answers[i] = group
        done(len(batch))
    return answers


def _sha256(one: Any) -> str:
    asked = dataclasses.asdict(one)
    if not asked["breaks"]:
        del asked["breaks"]  # a prompt without any has the sum that it had before there were breaks
    return hashlib.sha256(canonical(asked).encode()).hexdigest()


def _write(path: Path, places: list[int], batch: Sequence[Any], responses: list[list[Response]]) -> None:
    rows = [
        {"asked": i, "asked_sha256": _sha256(one), **dataclasses.asdict(response)}
        for i, one, group in zip(places, batch, responses, strict=True)
        for response in group
    ]
    with atomic(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)


def _read(path: Path, places: list[int], batch: Sequence[Any]) -> list[list[Response]] | None:
    """The responses in a shard, or None where it has to be made: it is not there, or broken, or answers something
    else. A shard that is thrown away is named, since that should not happen."""
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, partitioning=None)
        if table.schema.names != SCHEMA.names:
            raise ValueError("other columns")
        responses: dict[int, list[Response]] = {i: [] for i in places}
        sums = {i: _sha256(one) for i, one in zip(places, batch, strict=True)}
        for row in table.to_pylist():
            i = row.pop("asked")
            if sums.get(i) != row.pop("asked_sha256"):
                raise ValueError("it answers other prompts")
            responses[i].append(Response(**row))
        if not all(responses.values()):
            raise ValueError("answers are missing")
    except (OSError, ValueError, pa.ArrowException) as error:
        print(shown(f"imprint: {path} cannot be used ({error}); this batch is asked again"), file=sys.stderr)
        return None
    return [responses[i] for i in places]
