"""Does one side beat the other? Questions, answers and tables of two sides, by the statistics of every experiment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import polars as pl

from imprint.logs import matching
from imprint.logs.sides import Side
from imprint.runtime.errors import ImprintError
from imprint.runtime.schemas import SCHEMAS
from imprint.statistics import aggregate, answering
from imprint.statistics.summarize import AskedQuestion


@dataclass(frozen=True)
class Verdict:
    """The tables of a report, by name, and notes on what was left out."""

    tables: dict[str, pl.DataFrame]
    notes: list[str]


def compared(
    control: Side,
    arm: Side,
    metric: str | None = None,
    evals: Collection[str] | None = None,
    margins: Mapping[str, float] | None = None,
) -> Verdict:
    """Whether `arm` beats `control`, by one question for each eval that both have. All questions are one family.

    `metric`: the metric of the questions; None takes the first metric that all logs of an eval have. `evals`: the evals
    that are asked about; None takes all. `margins`: eval -> margin, for the evals whose question is whether `arm` keeps
    what `control` has. Raises ImprintError if the sides share no such eval, if the logs of an eval share no metric, or
    if too few examples match.
    """
    margins = margins or {}
    shared = [name for name in control.logs if name in arm.logs]
    compared_evals = [name for name in shared if evals is None or name in evals]
    if not compared_evals:
        asked_about = "" if evals is None else f", and the policy asks about {', '.join(evals)}"
        raise ImprintError(
            f"{control.name} has logs of {', '.join(control.logs)}, {arm.name} of {', '.join(arm.logs)}{asked_about}; "
            "write logs of the same evals"
        )
    notes = [
        f"{name}: only {side.name} has it, so it is left out"
        for side, other in ((control, arm), (arm, control))
        for name in side.logs
        if name not in other.logs
    ]
    metrics = {name: _metrics(control, arm, name, metric) for name in compared_evals}
    samples, scores = [], []
    for name in compared_evals:
        eval_samples, eval_scores = _of_eval(control, arm, name, list(metrics[name]), notes)
        samples.append(eval_samples)
        scores.append(eval_scores)
    all_samples, all_scores = pl.concat(samples), pl.concat(scores)
    names = [control.name, arm.name]
    examples = all_samples.unique(["eval", "example_id"]).select("eval", "example_id", "cluster", strata=pl.lit("{}"))
    fitted = [side.name for side in (control, arm) if side.runs > 1]
    table = aggregate.Table(all_scores, examples, dict.fromkeys(names, compared_evals), metrics, fitted)
    asked = [
        AskedQuestion(
            name=name,
            asks=f"Does {arm.name} keep what {control.name} has on {name}?"
            if name in margins
            else f"Does {arm.name} beat {control.name} on {name}?",
            arm=arm.name,
            control=control.name,
            eval=name,
            metric=next(iter(metrics[name])),
            kind="retention" if name in margins else "gain",
            margin=margins.get(name, 0.0),
            over=None,
            check=None,
        )
        for name in compared_evals
    ]
    rows = {
        "answers": answering.answer(table, asked, table_of("curves", pl.DataFrame())),
        "comparisons": aggregate.compare(table, {arm.name: [control.name]}),
        "summary": aggregate.summarize(table),
    }
    tables = {name: table_of(name, pl.DataFrame(records, infer_schema_length=None)) for name, records in rows.items()}
    return Verdict({**tables, "scores": all_scores, **_texts(all_samples)}, list(dict.fromkeys(notes)))


def _metrics(control: Side, arm: Side, name: str, metric: str | None) -> dict[str, tuple[bool, int]]:
    """The metrics that all logs of an eval have, the questions' metric first: metric -> (is primary, direction)."""
    logs = [*control.logs[name], *arm.logs[name]]
    shared = [candidate for candidate in logs[0].metrics if all(candidate in log.metrics for log in logs)]
    if not shared or (metric is not None and metric not in shared):
        lists = "; ".join(sorted({", ".join(log.metrics) for log in logs}))
        raise ImprintError(f"{name}: the logs do not share {metric or 'a metric'}; they have {lists}")
    primary = metric or shared[0]
    ordered = [primary, *(other for other in shared if other != primary)]
    return {name: (name == primary, logs[0].metrics[name]) for name in ordered}


def _of_eval(
    control: Side, arm: Side, name: str, metrics: list[str], notes: list[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The samples and the scores of an eval. Adds to `notes` what only one side has."""
    sides = [side for side in (control, arm) for _ in side.logs[name]]
    logs = [log for side in (control, arm) for log in side.logs[name]]
    rows = [
        samples.with_columns(eval=pl.lit(name), arm=pl.lit(side.name))
        for side, samples in zip(sides, matching.matched([log.samples for log in logs]), strict=True)
    ]
    _check_shared(control, arm, name, pl.concat(rows).select("arm", "example_id", "question"), notes)
    for log in logs:
        notes += [f"{name}: {metric} is not one number an example, so it is left out" for metric in log.left_out]
        notes += [
            f"{name}: {count:,} values of {metric} are missing or no finite numbers, so their pairs are left out"
            for metric in metrics
            if (count := log.values[metric].null_count())
        ]
    scores = [
        table_of(
            "scores",
            samples.select(
                "arm",
                "seed",
                "eval",
                "example_id",
                "sample",
                "truncated",
                eval_version=pl.lit("values of the log"),
                metric=pl.lit(metric),
                value=log.values[metric],
                status=pl.lit("scored"),
            ).with_columns(status=pl.when(pl.col("value").is_null()).then(pl.lit("error")).otherwise("status")),
        )
        for samples, log in zip(rows, logs, strict=True)
        for metric in metrics
    ]
    return pl.concat(rows), pl.concat(scores)


def _check_shared(control: Side, arm: Side, name: str, rows: pl.DataFrame, notes: list[str]) -> None:
    """Note the examples that only one side has. Raises ImprintError where fewer than half of the shorter side's
    examples are in the other side."""
    ids = {side.name: rows.filter(pl.col("arm") == side.name).unique("example_id") for side in (control, arm)}
    shared = ids[control.name].join(ids[arm.name], on="example_id", how="semi").height
    alone = {
        side.name: ids[side.name].join(ids[other.name], on="example_id", how="anti")
        for side, other in ((control, arm), (arm, control))
    }
    if shared < matching.LEAST * min(frame.height for frame in ids.values()):
        texts = "\n".join(
            f"  {side}: {frame['question'].min()!r:.200}" for side, frame in alone.items() if frame.height
        )
        raise ImprintError(
            f"{name}: {shared:,} examples of {control.name} and {arm.name} have the same question, of "
            f"{ids[control.name].height:,} and {ids[arm.name].height:,}. Only one side has\n{texts}\nName the field "
            "that holds the question (--question), or compare logs of the same eval"
        )
    for side, frame in alone.items():
        if frame.height:
            first = "; ".join(f"{text!r:.60}" for text in frame["question"].sort().head(matching.NAMED))
            notes.append(f"{name}: only {side} has {frame.height:,} of the examples: {first}")


def _texts(samples: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The tables from which the browser shows questions and responses. Each option is shown as a response."""
    written = samples.filter(pl.col("options").is_null()).select(
        "arm", "seed", "eval", "example_id", "sample", "response", "key", "error", "truncated", logprob_sum=pl.lit(None)
    )
    options = (
        samples.filter(pl.col("options").is_not_null())
        .drop("sample")
        .explode("options")
        .select(
            "arm",
            "seed",
            "eval",
            "example_id",
            pl.int_range(pl.len()).over("arm", "seed", "eval", "example_id").alias("sample"),
            pl.col("options").struct.field("text").alias("response"),
            "key",
            "error",
            "truncated",
            pl.col("options").struct.field("logprob").alias("logprob_sum"),
        )
    )
    rows = pl.concat([written.cast({"logprob_sum": pl.Float64}), options]).with_columns(
        turn=0,
        final=True,
        prompt_sha256=pl.col("key"),
        finish_reason=pl.when("truncated").then(pl.lit("length")),
    )
    prompts = samples.unique("key").select(prompt_sha256="key", prompt="question")
    return {"generations": table_of("generations", rows), "prompts": table_of("prompts", prompts)}


def table_of(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with the columns of a table; a column that they lack is null."""
    empty = pl.DataFrame(pl.from_arrow(SCHEMAS[name].empty_table()))
    return rows.select(
        (pl.col(column) if column in rows.columns else pl.lit(None)).cast(kind).alias(column)
        for column, kind in empty.schema.items()
    )
