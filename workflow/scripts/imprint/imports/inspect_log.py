"""Logs of Inspect: `.eval` and `.json` files, read by the package `inspect_ai`, which is installed on its own.

A metric is a scorer, or `SCORER/KEY` where a scorer gives several values. Grades are numbers as in Inspect: C is 1, P
is 0.5, I and N are 0. The epochs of a sample are its responses. `question` and `cluster` name fields of a sample's
metadata. Higher counts as better, since a log does not say.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

from imprint.imports import COLUMNS, Fields, Log
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import canonical

GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
MOST = 4 * 2**30
"""The most bytes of a log when it is unpacked."""
CUT = ("max_tokens", "model_length")
"""Inspect's stop reasons of a response that was cut."""


class Settings(Fields):
    """Nothing to set beside the fields of every reader."""


def suits(path: Path) -> bool:
    if path.suffix == ".json":
        with path.open("rb") as file:
            start = file.read(4096)
        return all(key in start for key in (b'"version"', b'"status"', b'"eval"', b'"eval_id"'))
    return path.suffix == ".eval"


def read(path: Path, settings: Settings) -> Log:
    import polars as pl

    log = _log(path)
    samples, scores = [], []
    for sample in log.samples or []:
        samples.append(_sample(path, sample, settings))
        scores.append(dict(_values(sample)))
    names = list(dict.fromkeys(name for values in scores for name in values))
    if not names:
        raise ImprintError(f"{path}: no sample has a score; write a log of a finished and scored eval")
    kinds: dict[str, Any] = {
        **dict.fromkeys(COLUMNS, pl.String),
        **{"options": pl.List(pl.Struct({"text": pl.String, "logprob": pl.Float64}))},
        **{"sample": pl.Int64, "seed": pl.Int64, "truncated": pl.Boolean},
    }
    return Log(
        eval=str(log.eval.task),
        samples=pl.DataFrame(samples, schema=kinds),
        values=pl.DataFrame(
            [[values.get(name) for name in names] for values in scores],
            schema=dict.fromkeys(names, pl.Float64),
            orient="row",
        ),
        metrics=dict.fromkeys(names, 1),
    )


def _log(path: Path) -> Any:
    """Inspect's own object. Raises ImprintError without the package, and for a file that it cannot read."""
    try:
        from inspect_ai.log import read_eval_log
    except ImportError:
        raise ImprintError(
            f"{path}: a log of Inspect is read by the package inspect_ai; install it with "
            "`.venv/bin/pip install '.[inspect]'`"
        ) from None
    try:
        size = path.stat().st_size
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
        if size > MOST:
            raise ImprintError(f"{path}: has {size:,} bytes; write logs of at most {MOST:,}, such as one a task")
        return read_eval_log(str(path))
    except ImprintError:
        raise
    except Exception as error:  # the package raises errors of its own, of pydantic, of zip files and of JSON
        raise ImprintError(
            f"{path}: Inspect cannot read it ({str(error)!r:.200}); write a log that it has written"
        ) from None


def _sample(path: Path, sample: Any, settings: Settings) -> dict[str, Any]:
    """A row of the log's samples."""
    where = f"{path}, sample {sample.id}"
    turns = [] if isinstance(sample.input, str) else [turn.text for turn in sample.input if turn.role == "user"]
    question = sample.input if isinstance(sample.input, str) else "\n".join(turns)
    choices = sample.output.choices if sample.output else []
    error = sample.error.message if sample.error else None if choices else "the log has no response"
    return {
        "question": _field(where, sample, settings.question) if settings.question else question,
        "detail": canonical([sample.target, sample.choices]),
        "reference": sample.target if isinstance(sample.target, str) else canonical(sample.target),
        "response": sample.output.completion if choices else None,
        "options": None,
        "sample": sample.epoch - 1,
        "seed": None,
        "cluster": _field(where, sample, settings.cluster) if settings.cluster else None,
        "error": error,
        "truncated": bool(choices) and choices[0].stop_reason in CUT,
    }


def _field(where: str, sample: Any, name: str) -> str:
    """A field of the sample's metadata, as text."""
    if name not in sample.metadata:
        raise ImprintError(f"{where}: the metadata have no '{name}'; name another field")
    value = sample.metadata[name]
    return value if isinstance(value, str) else canonical(value)


def _values(sample: Any) -> list[tuple[str, float | None]]:
    """The values of a sample by metric. None for a value that is neither a finite number nor a grade."""
    values = []
    for scorer, score in (sample.scores or {}).items():
        parts = score.value if isinstance(score.value, dict) else {"": score.value}
        values += [(f"{scorer}/{key}" if key else scorer, _number(value)) for key, value in parts.items()]
    return values


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return GRADES.get(value)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
