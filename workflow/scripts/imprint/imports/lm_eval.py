"""Logs of lm-eval-harness: `samples_TASK_DATE.jsonl`, as `--log_samples` writes them.

A line is one example under one filter. In a task with several filters, each example has several lines, and the metrics
are named as in lm-eval's table, `exact_match,strict-match`. The first filter of the file is the primary one. The
response is `resps`, what the model wrote before any filter. `results_DATE.json` beside the samples says whether higher
is better. Where this file is missing or does not name a metric, higher is better, except for the usual measures of
error such as `perplexity`.

The question is a field of `doc` that has a usual name, such as `question` or `prompt`. Where there is no such field,
the question is the complete prompt. `doc_hash` tells examples with one question apart.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprint.imports import COLUMNS, Fields, Log
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_object

if TYPE_CHECKING:
    import polars as pl

NAME = re.compile(r"samples_(.+?)(_\d{4}-\d\d-\d\dT[\d.-]+)?\.jsonl")
RESULTS = re.compile(r"results(_.*)?\.json")
RESULTS_BYTES = 64 * 2**20
"""The most bytes of `results_DATE.json`."""
QUESTIONS = ("question", "prompt", "problem", "query", "ctx", "goal", "sentence", "input", "text", "instruction")
"""Fields of a doc that may hold its question, the likeliest first."""
OWN = frozenset(
    "doc_id doc target arguments resps filtered_resps filter metrics doc_hash prompt_hash target_hash".split()  # noqa: SIM905
)
"""The keys of a line that are no metrics. All other keys count as metrics where a line does not list its metrics, as in
logs before lm-eval 0.4.5."""
LOWER_IS_BETTER = frozenset(
    ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter", "wer", "cer")
)
MOST_OPTIONS = 32
"""How many options of an example are kept: the first ones."""
_VALUE = "value of "  # before a metric's name, which may be that of a column
_KEY = ("question", "detail", "sample")


class Settings(Fields):
    """Nothing to set beside the fields of every reader."""


def suits(path: Path) -> bool:
    from imprint.imports import _lines

    return path.suffix == ".jsonl" and {"doc", "resps", "arguments"} <= _lines.first(path).keys()


def read(path: Path, settings: Settings) -> Log:
    import polars as pl

    from imprint.imports import _lines

    if RESULTS.fullmatch(path.name):
        raise ImprintError(f"{path}: has the means of a run; write the file beside it that `--log_samples` has written")
    line = _lines.first(path)
    kinds = {"doc": dict, "arguments": dict, "resps": list}
    if not all(isinstance(line.get(key), kind) for key, kind in kinds.items()):
        raise ImprintError(f"{path}, line 1: no sample of lm-eval; write a file that `--log_samples` has written")
    names = line.get("metrics", [name for name in line if name not in OWN])
    if not isinstance(names, list) or not all(isinstance(name, str) and "," not in name for name in names):
        raise ImprintError(f"{path}, line 1: `metrics` is {names!r:.80}; write the names of metrics")
    if len(set(names)) < len(names) or OWN & set(names):
        raise ImprintError(f"{path}, line 1: `metrics` is {names!r:.80}; write each once, and no other key of a sample")
    types = {name: pl.Boolean if isinstance(line.get(name), bool) else pl.Float64 for name in names}
    numbers = {name: kind for name, kind in types.items() if isinstance(line.get(name), int | float | None)}
    if not numbers:
        raise ImprintError(f"{path}, line 1: no metric is a number; found {', '.join(names) or 'none'}")
    blocks = _lines.frames(path, lambda block: _schema(line, settings, numbers, block))
    rows = pl.concat([_columns(path, number, frame, line, settings, list(numbers)) for number, frame in blocks])
    samples, values = _side_by_side(path, rows, list(numbers))
    title = NAME.fullmatch(path.name)
    eval_name = title[1] if title else path.stem
    stated = _higher_is_better(path.with_name(f"results{title[2] or ''}.json"), eval_name) if title else {}
    higher_is_better = {name: stated.get(name, name not in LOWER_IS_BETTER) for name in numbers}
    return Log(
        eval=eval_name,
        samples=samples,
        values=values,
        metrics={name: 1 if higher_is_better[name.split(",")[0]] else -1 for name in values.columns},
        left_out=tuple(name for name in names if name not in numbers),
    )


def _higher_is_better(path: Path, name: str) -> dict[str, bool]:
    """Metric -> whether higher is better, from the file of a run's results; empty without this file."""
    if not path.is_file():
        return {}
    if path.stat().st_size > RESULTS_BYTES:
        raise ImprintError(f"{path}: has more than {RESULTS_BYTES:,} bytes; write the results that lm-eval has written")
    results = read_object(path)
    evals = results.get("higher_is_better")
    metrics = evals.get(name) if isinstance(evals, dict) else None
    if not isinstance(metrics, dict):
        return {}
    return {metric: higher for metric, higher in metrics.items() if isinstance(higher, bool)}


def _question(line: dict[str, Any], settings: Settings) -> str | None:
    """The field of the doc that holds the question; None for the complete prompt."""
    if settings.question:
        return settings.question
    return next((name for name in QUESTIONS if isinstance(line["doc"].get(name), str)), None)


def _compares(line: dict[str, Any]) -> bool:
    """Whether the log compares options. If so, the second argument of a request is a text; else it holds settings."""
    request = line["arguments"].get("gen_args_0")
    return isinstance(request, dict) and isinstance(request.get("arg_1"), str)


def _schema(line: dict[str, Any], settings: Settings, metrics: dict[str, Any], block: bytes) -> dict[str, Any]:
    """The schema of a block of lines, with a field for each option that the block may have: reading fields that no line
    has takes as long as reading those that all have."""
    import polars as pl

    question = _question(line, settings)
    doc = {name: pl.String for name in (question, settings.cluster) if name}
    schema: dict[str, Any] = {"doc": pl.Struct(doc)} if doc else {}
    schema |= {"target": pl.String, "filter": pl.String, "doc_hash": pl.String}
    # A response is a text, or where options are compared, [log-likelihood, whether it is the greedy text].
    response = pl.List(pl.String) if _compares(line) else pl.String
    schema |= {"resps": pl.List(pl.List(response)), **metrics}
    if _compares(line):
        argument = pl.Struct({**({} if question else {"arg_0": pl.String}), "arg_1": pl.String})
        options = range(1, MOST_OPTIONS)
        count = next((i for i in options if f'"gen_args_{i}"'.encode() not in block), MOST_OPTIONS)
    else:
        argument, count = pl.Struct({"arg_0": pl.String}), 1
    if _compares(line) or question is None:
        schema["arguments"] = pl.Struct({f"gen_args_{i}": argument for i in range(count)})
    return schema


def _columns(
    path: Path, number: int, frame: pl.DataFrame, line: dict[str, Any], settings: Settings, metrics: list[str]
) -> pl.DataFrame:
    """A block of lines with the columns of a log, and `filter` and the metrics beside them. `number`: that of the
    block's first line; `line`: the first line of the file."""
    import polars as pl

    field, null = _question(line, settings), pl.lit(None, pl.String)
    argument = pl.col("arguments").struct.field
    question = pl.col("doc").struct.field(field) if field else argument("gen_args_0").struct.field("arg_0")
    if _compares(line):
        most = min(len(frame["arguments"].struct.fields), int(frame["resps"].list.len().max() or 1))  # type: ignore[arg-type]
        options = pl.concat_list(
            [
                pl.struct(
                    text=argument(f"gen_args_{i}").struct.field("arg_1"),
                    logprob=pl.col("resps")
                    .list.get(i, null_on_oob=True)
                    .list.get(0, null_on_oob=True)
                    .list.get(0, null_on_oob=True)
                    .cast(pl.Float64, strict=False),
                )
                for i in range(max(most, 1))
            ]
        ).list.head(pl.col("resps").list.len())
        responses = pl.concat_list(null)
    else:
        options = pl.lit(None, pl.List(pl.Struct({"text": pl.String, "logprob": pl.Float64})))
        responses = pl.col("resps").list.get(0, null_on_oob=True)
    rows = frame.select(
        question=question,
        detail=pl.col("doc_hash"),
        reference=pl.col("target"),
        response=responses,
        options=options,
        sample=pl.int_ranges(responses.list.len()),
        seed=pl.lit(None, pl.Int64),
        cluster=pl.col("doc").struct.field(settings.cluster) if settings.cluster else null,
        error=null,
        truncated=pl.lit(None, pl.Boolean),
        filter=pl.col("filter").fill_null("none"),
        **{
            f"{_VALUE}{name}": pl.when(pl.col(name).cast(pl.Float64).is_finite()).then(pl.col(name).cast(pl.Float64))
            for name in metrics
        },
    )
    for column, key in (
        ("question", field or "arguments"),
        *((("cluster", settings.cluster),) if settings.cluster else ()),
    ):
        if rows[column].null_count():
            line_number = number + int(rows[column].is_null().arg_max() or 0)
            raise ImprintError(f"{path}, about line {line_number}: the doc has no '{key}'; name another field")
    rows = rows.explode("response", "sample", empty_as_null=True).with_columns(pl.col("sample").fill_null(0))
    silent = pl.col("response").is_null() & pl.col("options").is_null()
    return rows.with_columns(error=pl.when(silent).then(pl.lit("the log has no response")).otherwise(pl.col("error")))


def _side_by_side(path: Path, rows: pl.DataFrame, metrics: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The samples of the first filter, and the metrics of all filters. Raises ImprintError where filters have different
    examples."""
    import polars as pl

    filters = rows["filter"].unique(maintain_order=True).to_list()
    parts = [rows.filter(pl.col("filter") == name) for name in filters]
    samples = parts[0].select(COLUMNS)
    columns = []
    for name, part in zip(filters, parts, strict=True):
        if not (part.height == samples.height and part.select(_KEY).equals(samples.select(_KEY), null_equal=True)):
            raise ImprintError(
                f"{path}: the filters '{filters[0]}' and '{name}' have different examples; log the task again"
            )
        columns += [
            part[f"{_VALUE}{metric}"].alias(f"{metric},{name}" if len(filters) > 1 else metric) for metric in metrics
        ]
    return samples, pl.DataFrame(columns)
