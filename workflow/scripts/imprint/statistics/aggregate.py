"""From scores to statistics: one summary row per arm x eval x metric, one comparison row per arm x control x eval x
metric. Needs neither torch nor the models.

A row that could not be scored (value null) never counts as 0: the tables count it, and it takes its pair out of every
comparison. The arms, evals and metrics come from the config, not from the scores, so an arm whose responses all failed
still has its rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from imprint.runtime.errors import ImprintError
from imprint.runtime.schemas import SCHEMAS
from imprint.statistics import stats

Metrics = Mapping[str, Mapping[str, tuple[bool, int]]]  # eval -> metric -> (is primary, direction)
Arms = Mapping[str, Sequence[str]]  # arm -> the evals it runs, both in the order of the config
Row = dict[str, Any]

_KEY = ("arm", "seed", "eval", "example_id", "sample", "metric", "item")
_NULL = ("error", "unjudged")  # rows of these statuses have no value; "unparsed" and "unverified" rows may have one


def summarize(scores: pl.DataFrame | pa.Table, examples: pl.DataFrame, arms: Arms, metrics: Metrics) -> list[Row]:
    """Rows of table `summary`; the seeds and samples of an arm are pooled. `examples` says to which cluster each
    example of each eval belongs, in the columns `eval`, `example_id` and `cluster`.

    `n_examples` counts examples; the other counts are of rows of the metric:

    - `n_attempted`: all rows, except those without a judge;
    - `n_scored`: rows with a value; `mean` and its interval are over these;
    - `n_error`: rows whose engine failed;
    - `n_unparsed`: answers that could not be read. They have a value, except a judge's answers;
    - `n_unverified`: rows whose check came to no verdict. They have a value, 0, if higher is better;
    - `n_truncated`: rows with a value whose response was cut off.

    Raises ImprintError for scores that are inconsistent, for a metric that is not in `metrics`, and for an example that
    is not in `examples`.
    """
    frame = _checked(scores, examples, metrics)
    parts: dict[tuple[Any, ...], pl.DataFrame] = dict(frame.partition_by("arm", "eval", "metric", as_dict=True))
    rows: dict[tuple[str, str, str], Row] = {}
    for eval_name, eval_metrics in metrics.items():
        clusters = _clusters(frame, eval_name)
        keys = [(arm, eval_name, m) for arm, evals in arms.items() if eval_name in evals for m in eval_metrics]
        runs = [parts.get(key, frame.clear()) for key in keys]
        estimates = stats.means(eval_name, [_cell(run.drop_nulls("value"), clusters) for run in runs])
        for key, run, estimate in zip(keys, runs, estimates, strict=True):
            primary, direction = eval_metrics[key[2]]
            scored = run.drop_nulls("value")
            rows[key] = {
                **dict(zip(("arm", "eval", "metric"), key, strict=True)),
                "primary": primary,
                "direction": direction,
                "n_examples": run["example_id"].n_unique(),
                "n_attempted": int((run["status"] != "unjudged").sum()),
                "n_scored": len(scored),
                "n_error": int((run["status"] == "error").sum()),
                "n_unparsed": int((run["status"] == "unparsed").sum()),
                "n_unverified": int((run["status"] == "unverified").sum()),
                "n_truncated": int(scored["truncated"].fill_null(False).sum()),
                "mean": _rounded(estimate.mean),
                "se": _rounded(estimate.se),
                "ci_low": _rounded(estimate.low),
                "ci_high": _rounded(estimate.high),
                "interval": estimate.method,
            }
    return [rows[arm, name, metric] for arm, evals in arms.items() for name in metrics if name in evals
            for metric in metrics[name]]  # fmt: skip


def compare(
    scores: pl.DataFrame | pa.Table,
    examples: pl.DataFrame,
    arms: Arms,
    controls: Mapping[str, Sequence[str]],
    metrics: Metrics,
) -> list[Row]:
    """Rows of table `comparisons`: each arm minus each of its controls, on every eval that both run and every metric
    with a direction.

    A pair is an example x item that both arms have. Each side of a pair is a mean over seeds and samples, so an
    unfitted control with one seed is paired with all seeds of the arm. One row without a value, in any seed or sample
    of either side, takes the pair out. `n_pairs`, `n_missing` (clusters without a complete pair), `wins`, `losses` and
    `ties` count clusters. A win is the arm's, whatever the metric's direction; `difference` keeps the metric's own
    sign. Holm corrects all primary metrics of the experiment as one family, and all other metrics as a second family.
    `examples` and errors are as in `summarize`.
    """
    frame = _checked(scores, examples, metrics)
    parts: dict[tuple[Any, ...], pl.DataFrame] = dict(frame.partition_by("arm", "eval", "metric", as_dict=True))
    results: dict[tuple[str, str, str, str], tuple[Row, stats.Difference]] = {}
    order = [
        (arm, control, name, metric)
        for arm in arms
        for control in controls.get(arm, ())
        for name in metrics
        if name in arms[arm] and name in arms[control]
        for metric, (_, direction) in metrics[name].items()
        if direction != 0
    ]
    for eval_name in metrics:
        keys = [key for key in order if key[2] == eval_name]
        clusters = _clusters(frame, eval_name)
        cells, totals = [], []
        for arm, control, _, metric in keys:
            ours, theirs = (parts.get((name, eval_name, metric), frame.clear()) for name in (arm, control))
            cells.append(_paired_cell(ours, theirs, clusters))
            totals.append(pl.concat([ours, theirs])["cluster"].n_unique())
        differences = stats.differences(eval_name, cells)
        for key, cell, total, difference in zip(keys, cells, totals, differences, strict=True):
            primary, direction = metrics[eval_name][key[3]]
            up, down = int(np.count_nonzero(cell.sums > 0)), int(np.count_nonzero(cell.sums < 0))
            row: Row = {
                **dict(zip(("arm", "control", "eval", "metric"), key, strict=True)),
                "family": "primary" if primary else "secondary",
                "direction": direction,
                "n_pairs": cell.n,
                "n_missing": total - cell.n,
                "difference": _rounded(difference.difference),
                "ci_low": _rounded(difference.low),
                "ci_high": _rounded(difference.high),
                "p": _rounded(difference.p),
                "test": difference.test,
                "wins": up if direction > 0 else down,
                "losses": down if direction > 0 else up,
                "ties": cell.n - up - down,
            }
            results[key] = row, difference
    for family in ("primary", "secondary"):
        members = [results[key] for key in order if results[key][0]["family"] == family]
        for (row, difference), p in zip(members, stats.holm([d.p for _, d in members]), strict=True):
            row["p_adjusted"] = _rounded(p)
            row["verdict"] = stats.verdict(difference, p, row["direction"])
    return [results[key][0] for key in order]


def _checked(scores: pl.DataFrame | pa.Table, examples: pl.DataFrame, metrics: Metrics) -> pl.DataFrame:
    """The scores sorted by key, with a column `cluster`. Raises ImprintError for scores that cannot be counted."""
    frame = scores if isinstance(scores, pl.DataFrame) else pl.DataFrame(pl.from_arrow(scores))
    if list(frame.columns) != SCHEMAS["scores"].names:
        raise ImprintError(
            f"the scores have the columns {', '.join(frame.columns)}; write {', '.join(SCHEMAS['scores'].names)}"
        )
    declared = {(name, metric) for name, eval_metrics in metrics.items() for metric in eval_metrics}
    for name, metric in sorted(set(frame.select("eval", "metric").unique().rows()) - declared):
        raise ImprintError(f"the scores hold metric '{metric}' of eval '{name}', which its score module does not name")
    wrong = frame.filter(
        ~pl.col("status").is_in(("scored", "unparsed", "unverified", *_NULL))
        | ((pl.col("status") == "scored") & pl.col("value").is_null())
        | (pl.col("status").is_in(_NULL) & pl.col("value").is_not_null())
        | ~pl.col("value").is_finite().fill_null(True)
    )
    if len(wrong):
        row = wrong.row(0, named=True)
        raise ImprintError(
            f"eval '{row['eval']}', arm '{row['arm']}', example {row['example_id']}, metric '{row['metric']}': "
            f"value {row['value']} with status '{row['status']}'; write a finite value with 'scored', 'unparsed' or "
            "'unverified', null with 'error' or 'unjudged'"
        )
    duplicates = frame.filter(frame.select(_KEY).is_duplicated())
    if len(duplicates):
        row = duplicates.select(_KEY).row(0, named=True)
        raise ImprintError(f"the scores hold two rows for {row}; delete the scores file of that run and score again")
    clustered = frame.join(examples, on=["eval", "example_id"], how="left").sort("cluster", *_KEY)
    unknown = clustered.filter(pl.col("cluster").is_null())
    if len(unknown):
        row = unknown.row(0, named=True)
        raise ImprintError(
            f"eval '{row['eval']}', arm '{row['arm']}': the scores hold the example {row['example_id']}, which the "
            "eval's dataset lacks; delete the scores file of that run and score again"
        )
    return clustered


def _clusters(frame: pl.DataFrame, eval_name: str) -> pl.DataFrame:
    """The eval's clusters in sorted order, with their positions. Clusters of all arms are in it, so that all arms share
    the bootstrap's weights."""
    return frame.filter(pl.col("eval") == eval_name).select("cluster").unique().sort("cluster").with_row_index("index")


def _cell(scored: pl.DataFrame, clusters: pl.DataFrame) -> stats.Clustered:
    """Sums of `value` and counts of rows per cluster. np.bincount adds in row order, and the rows are sorted, so the
    same scores in any order give the same bits."""
    index = scored.join(clusters, on="cluster", how="left", maintain_order="left")["index"].to_numpy()
    counts = np.bincount(index, minlength=len(clusters)).astype(np.float64)
    sums = np.bincount(index, weights=scored["value"].to_numpy(), minlength=len(clusters)).astype(np.float64)
    binary = bool(scored["value"].is_in([0.0, 1.0]).all())
    return stats.Clustered(sums, counts, binary, bool((counts <= 1).all()))


def _paired_cell(arm: pl.DataFrame, control: pl.DataFrame, clusters: pl.DataFrame) -> stats.Clustered:
    """Sums of differences and counts of complete pairs per cluster."""
    sides = [_pair_side(rows, clusters) for rows in (arm, control)]
    pairs = sides[0][0].join(sides[1][0], on=["cluster", "example_id", "part"], how="inner", suffix="_control")
    pairs = pairs.sort("cluster", "example_id", "part")
    a, b = pairs["value"].to_numpy(), pairs["value_control"].to_numpy()
    # Two runs of equal weights may differ in the last bits of a log-likelihood. They tie.
    gaps = np.where(np.isclose(a, b, rtol=1e-9, atol=1e-12), 0.0, a - b)
    cell = _cell(pairs.with_columns(pl.Series("value", gaps, dtype=pl.Float64)), clusters)
    single = cell.single and all(side[2] for side in sides)
    return stats.Clustered(cell.sums, cell.counts, all(side[1] for side in sides), single)


def _pair_side(rows: pl.DataFrame, clusters: pl.DataFrame) -> tuple[pl.DataFrame, bool, bool]:
    """(means, binary, single) of one arm: the mean over seeds and samples of each complete example x item (column
    `part`, -1 without items), whether all values are 0 or 1, and whether no cluster has more than one row."""
    lost = rows.filter(pl.col("value").is_null())
    # A failure of the engine has no item, and takes out all items of its example.
    lost_examples = lost.filter(pl.col("item").is_null()).select("example_id").unique()
    lost_items = lost.select("example_id", "item").unique()
    kept = rows.join(lost_examples, on="example_id", how="anti").join(
        lost_items, on=["example_id", "item"], how="anti", nulls_equal=True
    )
    kept = kept.sort("cluster", *_KEY)
    cell = _cell(kept, clusters)
    means = kept.group_by("cluster", "example_id", pl.col("item").fill_null(-1).alias("part")).agg(
        pl.col("value").mean()
    )
    return means, cell.binary, cell.single


def _rounded(value: float | None) -> float | None:
    """Twelve significant digits, because the last bits of a matrix product depend on the number of threads; None for a
    value that is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.12g}")
