"""The tables: their Parquet schemas, how rows get their ids, and reading and writing that never leaves half a file.

Tables are long, not wide: a new metric adds rows. A dataset row in Python is
`{"example_id", "messages": [{"role", "content"}], "reference", "fields": {}, "strata": {}}`; on disk `reference`,
`fields` and `strata` are JSON text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imprint.errors import ImprintError
from imprint.identity import atomic, canonical

_text, _int, _float, _bool = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_run = [("arm", _text), ("seed", _int), ("eval", _text)]

SCHEMAS: dict[str, pa.Schema] = {
    # One row per example.
    "datasets": pa.schema(
        [
            ("dataset", _text),
            ("example_id", _text),
            ("messages", pa.list_(pa.struct([("role", _text), ("content", _text)]))),
            ("reference", _text),
            ("fields", _text),
            ("strata", _text),
            ("source_sha256", _text),
        ]
    ),
    # One row per attempt of a synthesiser; reason is null when the row was kept.
    "synthesis": pa.schema(
        [("dataset", _text), ("example_id", _text), ("kept", _bool), ("reason", _text), ("response", _text)]
    ),
    # One row per distinct rendered prompt.
    "prompts": pa.schema([("prompt_sha256", _text), ("prompt", _text), ("template_sha256", _text)]),
    # One row per example x sample x turn. When options are scored by log-likelihood, `sample` is the option's index,
    # `response` its text and `logprob_sum` its log-likelihood (nats); otherwise that of the generated tokens.
    "generations": pa.schema(
        [
            *_run,
            ("example_id", _text),
            ("sample", _int),
            ("turn", _int),
            ("final", _bool),
            ("prompt_sha256", _text),
            ("response", _text),
            ("finish_reason", _text),
            ("prompt_tokens", _int),
            ("response_tokens", _int),
            ("logprob_sum", _float),
            ("seconds", _float),
            ("engine", _text),
            ("error", _text),
        ]
    ),
    # One row per response x question that a judge was asked; answer is null where its engine failed, which error says.
    "judgements": pa.schema(
        [
            *_run,
            ("example_id", _text),
            ("sample", _int),
            ("score", _text),
            ("question", _text),
            ("judge", _text),
            ("answer", _text),
            ("response_tokens", _int),
            ("error", _text),
        ]
    ),
    # One row per example x sample x metric x item. `value` is null where nothing could be scored; status is "scored",
    # "unparsed" (value 0 for a response without an answer, null for a judge's), "error" (null: the engine failed),
    # "unjudged" (null: the eval has no judge) or "unverified" (its check took too long or stumbled: value 0 where more
    # is better, else null). `eval_version` is the score with its version and conditions.
    "scores": pa.schema(
        [
            *_run,
            ("eval_version", _text),
            ("example_id", _text),
            ("sample", _int),
            ("metric", _text),
            ("item", _int),
            ("item_label", _text),
            ("value", _float),
            ("status", _text),
            ("truncated", _bool),
        ]
    ),
    # One row per arm x eval x metric (all seeds and samples of the run together).
    "summary": pa.schema(
        [
            ("arm", _text),
            ("eval", _text),
            ("metric", _text),
            ("primary", _bool),
            ("direction", _int),
            ("n_examples", _int),
            ("n_attempted", _int),
            ("n_scored", _int),
            ("n_error", _int),
            ("n_unparsed", _int),
            ("n_unverified", _int),
            ("n_truncated", _int),
            ("mean", _float),
            ("se", _float),
            ("ci_low", _float),
            ("ci_high", _float),
            ("interval", _text),
        ]
    ),
    # One row per arm x control x eval x metric: the arm minus the control on the same examples.
    "comparisons": pa.schema(
        [
            ("arm", _text),
            ("control", _text),
            ("eval", _text),
            ("metric", _text),
            ("family", _text),
            ("direction", _int),
            ("n_pairs", _int),
            ("n_missing", _int),
            ("difference", _float),
            ("ci_low", _float),
            ("ci_high", _float),
            ("p", _float),
            ("p_adjusted", _float),
            ("test", _text),
            ("wins", _int),
            ("losses", _int),
            ("ties", _int),
            ("verdict", _text),
        ]
    ),
    # One row per arm x seed x stage ("train", or "generate" and "judge" with the eval's name).
    "costs": pa.schema(
        [
            ("arm", _text),
            ("seed", _int),
            ("stage", _text),
            ("eval", _text),
            ("seconds", _float),
            ("cpu_seconds", _float),
            ("gpu_seconds", _float),  # seconds times GPUs held, also of attempts that failed
            ("peak_memory_bytes", _int),
            ("peak_gpu_memory_bytes", _int),
            ("attempts", _int),
            ("tokens", _int),
            ("tokens_per_second", _float),
            ("device", _text),
            ("source", _text),  # "slurm" where its accounting knows the job, else "benchmark"
        ]
    ),
    # One row per logged training step and quantity (loss, reward, learning_rate, ...).
    "curves": pa.schema([("arm", _text), ("seed", _int), ("step", _int), ("quantity", _text), ("value", _float)]),
    # One row per task vector, block and part of a composed arm: the coefficient it was merged with. `layer` is null
    # outside the layers, `kind` is the block's place within its layer, `part` is 0 unless blocks are partitioned.
    "coefficients": pa.schema(
        [
            ("arm", _text),
            ("seed", _int),
            ("vector", _text),
            ("layer", _int),
            ("kind", _text),
            ("block", _text),
            ("part", _int),
            ("value", _float),
        ]
    ),
    # One row per quantity that an analysis computes of an arm, or of an arm and another, at a place in the model:
    # `layer` is null outside the layers, `kind` is what it is about in there ("all": the whole). `null` is what the
    # value would be on average if there were nothing to find, null where there is no such value.
    "analyses": pa.schema(
        [
            ("analysis", _text),
            ("seed", _int),
            ("arm", _text),
            ("other", _text),
            ("layer", _int),
            ("kind", _text),
            ("quantity", _text),
            ("value", _float),
            ("null", _float),
        ]
    ),
    # One row per completion that a fit drew, step by step. `rewards` has a value per term, `reward` is what the
    # advantage was computed from; `logprob_sum` (nats, temperature 1) is over `response_tokens` tokens, the end token
    # included.
    "rollouts": pa.schema(
        [
            ("arm", _text),
            ("seed", _int),
            ("step", _int),
            ("example_id", _text),
            ("sample", _int),
            ("prompt", _text),
            ("response", _text),
            ("response_tokens", _int),
            ("finish_reason", _text),
            ("logprob_sum", _float),
            ("rewards", pa.map_(_text, _float)),
            ("reward", _float),
            ("advantage", _float),
        ]
    ),
    # One row per pair of a training dataset and an eval.
    "contamination": pa.schema(
        [("arm", _text), ("dataset", _text), ("eval", _text), ("n_train", _int), ("n_eval", _int), ("n_shared", _int)]
    ),
}


OF_A_RUN = ("generations", "judgements", "scores")


def write(path: Path, name: str, rows: Iterable[dict[str, Any]] | pa.Table) -> None:
    """Write rows (dicts or a table) of schema `name` to a Parquet file, atomically. Missing columns are an error."""
    schema = SCHEMAS[name]
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    table = table.select(schema.names).cast(schema)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


KEYS = frozenset(
    ("dataset", "example_id", "messages", "reference", "fields", "strata", "arm", "seed", "sample", "metric")
)
"""Columns that no row of any table leaves empty."""


def read(path: Path, name: str) -> pa.Table:
    """Read a Parquet file and check that it has schema `name`; a broken or foreign file is an error that names it."""
    try:
        table = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise ImprintError(f"{path} is not a readable Parquet file ({error}); delete it and run again") from error
    if table.schema.names != SCHEMAS[name].names:
        raise ImprintError(
            f"{path} has the columns {', '.join(table.schema.names)}, but a '{name}' table has "
            f"{', '.join(SCHEMAS[name].names)}; delete it and run again"
        )
    columns = []
    for field in SCHEMAS[name]:
        try:
            columns.append(table[field.name].cast(field.type))
            columns[-1].validate(full=True)  # texts are UTF-8
        except (ValueError, pa.ArrowException) as error:
            raise _not_as_made(
                path, f"the column '{field.name}' is not {field.type}, as in every '{name}' table ({error})"
            ) from error
        if field.name in KEYS and columns[-1].null_count:
            raise _not_as_made(path, f"the column '{field.name}' is empty in {columns[-1].null_count} rows")
    table = pa.Table.from_arrays(columns, schema=SCHEMAS[name])
    if name in OF_A_RUN and re.fullmatch(r"seed\d+", path.parent.name):
        _check_run(path, table)
    return table


def _check_run(path: Path, table: pa.Table) -> None:
    """Raise unless all rows are of the run that a file is named after: ARM/seedSEED/EVAL.parquet."""
    named = {"arm": path.parts[-3], "seed": int(path.parent.name.removeprefix("seed")), "eval": path.stem}
    for column, expected in named.items():
        others = [value for value in pc.unique(table[column]).to_pylist() if value != expected]
        if others:
            raise ImprintError(
                f"{path} holds rows of {column} {others[0]!r} instead of {expected!r}; delete it and run again"
            )


def _not_as_made(path: Path, why: str) -> ImprintError:
    return ImprintError(f"{path}: {why}; delete it and run again")


def concat(paths: Iterable[Path], name: str) -> pa.Table:
    """The rows of several files of one schema, in the order given."""
    return pa.concat_tables([SCHEMAS[name].empty_table(), *(read(path, name) for path in paths)])


def example_ids(contents: Iterable[Any]) -> list[str]:
    """Ids for rows by content: 16 hex digits of the sha256 of the canonical content, "-", and how often the same
    content came before (public sets hold duplicates)."""
    seen: Counter[str] = Counter()
    ids = []
    for content in contents:
        digest = hashlib.sha256(canonical(content).encode()).hexdigest()[:16]
        ids.append(f"{digest}-{seen[digest]}")
        seen[digest] += 1
    return ids


def cluster(example_id: str) -> str:
    """The unit that is resampled: duplicates of one content are one cluster."""
    return example_id.split("-")[0]


def write_dataset(path: Path, dataset: str, rows: Iterable[dict[str, Any]], source_sha256: str) -> None:
    """Write dataset rows. Rows without an `example_id` get one from messages and reference; annotations (`fields`)
    and strata do not enter it, so a row keeps its id when a role prompt is added to it."""
    rows = list(rows)
    fresh = example_ids({"messages": r["messages"], "reference": r.get("reference")} for r in rows)
    write(
        path,
        "datasets",
        [
            {
                "dataset": dataset,
                "example_id": row.get("example_id") or new_id,
                "messages": row["messages"],
                "reference": canonical(row.get("reference")),
                "fields": canonical(row.get("fields") or {}),
                "strata": canonical(row.get("strata") or {}),
                "source_sha256": source_sha256,
            }
            for row, new_id in zip(rows, fresh, strict=True)
        ],
    )


def read_dataset(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Dataset rows with their JSON columns decoded, in file order. `limit` keeps the rows whose ids hash smallest, so
    that a smaller limit is a subset of a larger one."""
    rows: list[dict[str, Any]] = read(path, "datasets").to_pylist()
    if limit is not None and len(rows) > limit:
        order = sorted(rows, key=lambda row: hashlib.sha256(row["example_id"].encode()).hexdigest())
        keep = {row["example_id"] for row in order[:limit]}
        rows = [row for row in rows if row["example_id"] in keep]
    for row in rows:
        where = f"the row '{row['example_id']}'"
        if not all(message and None not in message.values() for message in row["messages"]):
            raise _not_as_made(path, f"{where} has a message without a role or a content")
        for column in ("reference", "fields", "strata"):
            try:
                row[column] = json.loads(row[column])
            except (ValueError, RecursionError) as error:
                raise _not_as_made(path, f"the column '{column}' of {where} is not JSON ({error})") from error
    return rows
