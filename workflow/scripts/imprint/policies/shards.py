"""Shards: the responses of an engine, written to a file batch by batch, so that a killed job repeats no finished batch.

The prompts of a round alone decide its batches. A batch that was interrupted runs again completely, because in bf16 the
text depends on the batch. So a resumed run gives the same responses as an unbroken one.
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
        ("asked", pa.int64()),  # index of the prompt in its round
        ("asked_sha256", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("response_tokens", pa.int64()),
        ("logprob_sum", pa.float64()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
        ("answer_tokens", pa.int64()),
    ]
)


def answer(
    engine: Any,
    prompts: Sequence[Prompt] | Sequence[Candidates],
    folder: Path,
    done: Callable[[int], object] = lambda count: None,
) -> list[list[Response]]:
    """The responses to each prompt, in the order of the prompts: one for a Prompt; one per continuation, or a single
    error, for Candidates. `folder` keeps the shards of this round only. `done` is called with the size of each finished
    batch. Batches begin with the longest prompts."""
    lengths = [len(engine.tokens(prompt.text, prompt.breaks)) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (-lengths[i], i))
    answers: list[list[Response]] = [[] for _ in prompts]
    for number, start in enumerate(range(0, len(order), engine.batch_size)):
        places = order[start : start + engine.batch_size]
        batch = [prompts[i] for i in places]
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


def _sha256(prompt: Any) -> str:
    return hashlib.sha256(canonical(dataclasses.asdict(prompt)).encode()).hexdigest()


def _write(path: Path, places: list[int], batch: Sequence[Any], responses: list[list[Response]]) -> None:
    rows = [
        {"asked": i, "asked_sha256": _sha256(prompt), **dataclasses.asdict(response)}
        for i, prompt, group in zip(places, batch, responses, strict=True)
        for response in group
    ]
    with atomic(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)


def _read(path: Path, places: list[int], batch: Sequence[Any]) -> list[list[Response]] | None:
    """The responses in a shard, in the order of the batch. None if the shard is missing, is broken, or answers other
    prompts. A shard that exists and cannot be used is named on stderr, since that should not happen."""
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, partitioning=None)
        if table.schema.names != SCHEMA.names:
            raise ValueError("other columns")
        responses: dict[int, list[Response]] = {i: [] for i in places}
        hashes = {i: _sha256(prompt) for i, prompt in zip(places, batch, strict=True)}
        for row in table.to_pylist():
            i = row.pop("asked")
            if hashes.get(i) != row.pop("asked_sha256"):
                raise ValueError("it answers other prompts")
            responses[i].append(Response(**row))
        if not all(responses.values()):
            raise ValueError("answers are missing")
    except (OSError, ValueError, pa.ArrowException) as error:
        print(shown(f"imprint: {path} cannot be used ({error}); this batch is asked again"), file=sys.stderr)
        return None
    return [responses[i] for i in places]
