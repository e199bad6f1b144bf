"""Tables that you make yourself: JSON lines or Parquet, a row for each response and metric.

| column | holds |
|---|---|
| `question` | the question; without this column, `example_id` stands for it |
| `example_id` | tells examples with one question apart |
| `response` | what the model wrote |
| `value` | a number, or true or false; null where the response could not be scored |
| `metric` | the name of the value, else `value`; the first one in the file is the primary metric |
| `direction` | 1 if higher values of the metric are better (also without this column), -1 if lower ones are |
| `reference` | the right answer |
| `sample` | the number of the response among several to one question, from 0 |
| `seed` | the training run that wrote the response |
| `cluster` | rows of one cluster depend on each other |
| `error` | why there is no response |
| `truncated` | whether the response was cut |

`question` or `example_id`, and `response` or `value`, must be there. Other columns are left alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprint.imports import COLUMNS, Fields, Log
from imprint.runtime.errors import ImprintError

if TYPE_CHECKING:
    import polars as pl

TEXTS = ("question", "example_id", "response", "metric", "reference", "cluster", "error")
NUMBERS = ("value", "sample", "seed", "direction")
OF_OTHERS = frozenset(("resps", "arguments"))
"""Keys of lm-eval's lines. A file with one of these is no table."""


class Settings(Fields):
    """Nothing to set beside the fields of every reader."""


def suits(path: Path) -> bool:
    from imprint.imports import _lines

    if path.suffix == ".parquet":
        return True
    return path.suffix == ".jsonl" and not _lines.first(path).keys() & OF_OTHERS


def read(path: Path, settings: Settings) -> Log:
    import polars as pl

    rows = _rows(path, settings)
    keys = ["question", "detail", "sample", "seed"]
    values = rows.select(*keys, "metric", "value", "direction", part=pl.int_range(pl.len()).over(*keys, "metric"))
    metrics = rows["metric"].unique(maintain_order=True).to_list()
    samples = rows.unique(keys, keep="first", maintain_order=True)
    if values["part"].max():
        row = values.filter(pl.col("part") > 0).row(0, named=True)
        raise ImprintError(
            f"{path}: holds two values of {row['metric']} for {row['question']!r:.80}; number them in a column "
            "`sample`, or tell the examples apart in a column `example_id`"
        )
    wide = {
        name: samples.select(keys)
        .join(values.filter(pl.col("metric") == name), on=keys, how="left", nulls_equal=True, maintain_order="left")
        .select(pl.when(pl.col("value").is_finite()).then(pl.col("value")).alias(name))[name]
        for name in metrics
    }
    directions = dict(values.group_by("metric").agg(pl.col("direction").unique()).rows())
    for name in metrics:
        if len(directions[name]) > 1 or directions[name][0] not in (1, -1):
            raise ImprintError(f"{path}: the direction of {name} is {directions[name]}; write 1 or -1 in all its rows")
    return Log(
        eval=path.stem,
        samples=samples.select(COLUMNS),
        values=pl.DataFrame(wide),
        metrics={name: int(directions[name][0]) for name in metrics},
    )


def _rows(path: Path, settings: Settings) -> pl.DataFrame:
    """The rows with the columns of a log, and `metric`, `value` and `direction` beside them."""
    import polars as pl

    frame = _frame(path, settings)
    question, cluster = settings.question or "question", settings.cluster or "cluster"
    has_question = frame["question"].null_count() < frame.height
    known_by = settings.question or ("question" if has_question else "example_id")
    for column in filter(None, (known_by, settings.cluster)):
        if frame[column].null_count():
            place = int(frame[column].is_null().arg_max() or 0) + 1
            raise ImprintError(
                f"{path}, row {place}: has no `{column}`; write one in every row, or name another column"
            )
    if frame["response"].null_count() == frame["value"].null_count() == frame.height:
        raise ImprintError(f"{path}: has neither `response` nor `value`; write one of these columns")
    return frame.select(
        question=pl.col(known_by),
        detail=pl.col("example_id") if known_by == question else pl.lit(None, pl.String),
        reference="reference",
        response="response",
        options=pl.lit(None, pl.List(pl.Struct({"text": pl.String, "logprob": pl.Float64}))),
        sample=pl.col("sample").fill_null(0).cast(pl.Int64),
        seed=pl.col("seed").cast(pl.Int64),
        cluster=cluster,
        error="error",
        truncated="truncated",
        metric=pl.col("metric").fill_null("value"),
        value="value",
        direction=pl.col("direction").fill_null(1),
    )


def _frame(path: Path, settings: Settings) -> pl.DataFrame:
    """The columns that the module's docstring lists, in the types that they must have; null where the file lacks
    one."""
    import polars as pl

    from imprint.imports import _lines

    texts = dict.fromkeys((*TEXTS, *filter(None, (settings.question, settings.cluster))), pl.String)
    schema: dict[str, Any] = {**texts, **dict.fromkeys(NUMBERS, pl.Float64), "truncated": pl.Boolean}
    if path.suffix == ".jsonl":
        if isinstance(_lines.first(path).get("value"), bool):
            schema["value"] = pl.Boolean
        frame = pl.concat([block for _, block in _lines.frames(path, lambda _: schema)])
        return frame.with_columns(pl.col("value").cast(pl.Float64))
    try:
        rows = pl.read_parquet(path, columns=[name for name in pl.read_parquet_schema(path) if name in schema])
        return pl.DataFrame(
            [
                rows[name].cast(kind) if name in rows.columns else pl.Series(name, [None] * rows.height, kind)
                for name, kind in schema.items()
            ]
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ImprintError(
            f"{path}: cannot be read as a table ({error}); compare its columns with the manual"
        ) from None
