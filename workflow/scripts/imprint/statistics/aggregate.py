"""From scores to statistics: a summary row per arm x eval x metric, and a comparison row per arm x control x eval x
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
from imprint.statistics import contrasts
from imprint.statistics.contrasts import Contrast, Floats, Scores, contrast
from imprint.statistics.looks import Z

Metrics = Mapping[str, Mapping[str, tuple[bool, int]]]  # eval -> metric -> (is primary, direction)
Arms = Mapping[str, Sequence[str]]  # arm -> the evals it runs, both in the order of the config
Row = dict[str, Any]

MOST_ARMS = 24
NO_ROWS = pl.DataFrame(pl.from_arrow(SCHEMAS["scores"].empty_table())).with_columns(cluster=pl.lit(None, pl.String))
_KEY = ("arm", "seed", "example_id", "sample", "item")  # of the rows of one eval and metric
COLUMNS = (*_KEY, "eval", "metric", "value", "status", "truncated")
"""The columns of the table `scores` that are read."""
_NULL = ("error", "unjudged")  # rows of these statuses have no value; "unparsed" and "unverified" rows may have one
_COUNTS = {
    "n_examples": pl.col("example_id").n_unique(),
    "n_attempted": (pl.col("status") != "unjudged").sum(),
    "n_scored": pl.col("value").count(),
    **{f"n_{status}": (pl.col("status") == status).sum() for status in ("error", "unparsed", "unverified")},
    "n_truncated": (pl.col("truncated") & pl.col("value").is_not_null()).sum(),
}


class Table:
    """The scores of an experiment, checked, and as arrays of items x seeds for every eval and metric.

    `examples` says to which cluster each example of each eval belongs, and of which kinds it is, in the columns `eval`,
    `example_id`, `cluster` and `strata` (JSON text). `fitted`: the arms whose answers depend on a training run that is
    repeated for each seed; `single`: those that depend on a single training run. Raises ImprintError for scores that
    are inconsistent, for a metric that is not in `metrics`, and for an example that is not in `examples`.
    """

    def __init__(
        self,
        scores: pl.DataFrame | pa.Table,
        examples: pl.DataFrame,
        arms: Arms,
        metrics: Metrics,
        fitted: Sequence[str],
        single: Sequence[str] = (),
    ) -> None:
        self.arms, self.metrics, self.fitted, self.single = arms, metrics, frozenset(fitted), frozenset(single)
        self.examples = examples
        self._rows = _checked(scores, examples.drop("strata"), metrics)
        self._arrays: dict[tuple[str, str, str | None], Scores] = {}
        self._contrasts: dict[tuple[str | None, ...], Contrast | None] = {}

    def rows(self, eval_name: str, metric: str) -> pl.DataFrame:
        """The score rows of all arms, sorted by cluster and key."""
        return self._rows.get((eval_name, metric), NO_ROWS)

    def arrays(self, eval_name: str, metric: str, over: str | None = None) -> Scores:
        """The scores of all arms, as the statistics take them. With `over`, the clusters are the values of that
        stratum. Raises ImprintError if an example has none."""
        key = (eval_name, metric, over)
        if key not in self._arrays:
            rows = self.rows(eval_name, metric)
            self._arrays[key] = _arrays(self._by_stratum(rows, over) if over else rows, self.fitted, self.single)
        return self._arrays[key]

    def clusters(self, eval_name: str, over: str | None = None) -> int:
        """How many clusters the eval's dataset has, or values of the stratum `over`."""
        labels = pl.col("cluster") if over is None else _stratum(over)
        return int(self.examples.filter(eval=eval_name).select(labels.n_unique()).item())

    def _by_stratum(self, rows: pl.DataFrame, over: str) -> pl.DataFrame:
        """The rows, with the values of the stratum as clusters."""
        values = self.examples.select("eval", "example_id", stratum=_stratum(over))
        rows = rows.with_columns(pl.col("eval", "example_id").cast(pl.String))
        rows = rows.join(values, on=["eval", "example_id"], how="left", maintain_order="left")
        if rows["stratum"].null_count():
            row = rows.filter(pl.col("stratum").is_null()).row(0, named=True)
            raise ImprintError(
                f"eval '{row['eval']}': the example {row['example_id']} has no stratum '{over}'; write another `over`, "
                "or leave it out"
            )
        return rows.with_columns(cluster=pl.col("stratum")).drop("stratum")

    def contrast(
        self, eval_name: str, metric: str, arm: str, control: str | None = None, over: str | None = None
    ) -> Contrast | None:
        """Arm minus control, or the arm's mean; None where either has no rows."""
        key = (eval_name, metric, arm, control, over)
        if key not in self._contrasts:
            scores = self.arrays(eval_name, metric, over)
            there = {arm, control} <= {*scores.values, None}
            self._contrasts[key] = contrast(scores, arm, control) if there else None
        return self._contrasts[key]


def _stratum(name: str) -> pl.Expr:
    return pl.col("strata").str.json_path_match(f"$.{name}")


def summarize(table: Table) -> list[Row]:
    """Rows of table `summary`; the seeds and samples of an arm are pooled.

    `n_examples` counts examples; the other counts are of rows of the metric:

    - `n_attempted`: all rows, except those without a judge;
    - `n_scored`: rows with a value; `mean` and its interval are over the examples that have one in every seed;
    - `n_error`: rows whose engine failed;
    - `n_unparsed`: answers that could not be read. They have a value, except a judge's answers;
    - `n_unverified`: rows whose check came to no verdict. They have a value, 0, if higher is better;
    - `n_truncated`: rows with a value whose response was cut off.
    """
    counted = {
        (eval_name, metric): _counted(table.rows(eval_name, metric))
        for eval_name, of_eval in table.metrics.items()
        for metric in of_eval
    }
    return [
        {
            **{"arm": arm, "eval": eval_name, "metric": metric},
            **{"primary": primary, "direction": direction},
            **counted[eval_name, metric].get(arm, dict.fromkeys(_COUNTS, 0)),
            **_estimate(table.contrast(eval_name, metric, arm), "mean"),
        }
        for arm, evals in table.arms.items()
        for eval_name in table.metrics
        if eval_name in evals
        for metric, (primary, direction) in table.metrics[eval_name].items()
    ]


def _counted(rows: pl.DataFrame) -> dict[str, Row]:
    """Arm -> the counts of its rows of one eval and metric."""
    counts = rows.group_by("arm").agg(**_COUNTS).with_columns(pl.col("arm").cast(pl.String))
    return {row.pop("arm"): row for row in counts.iter_rows(named=True)}


def compare(table: Table, controls: Mapping[str, Sequence[str]], secondary: bool = True) -> list[Row]:
    """Rows of table `comparisons`: each arm minus each of its controls, on every eval that both run and every metric
    with a direction; without `secondary`, on primary metrics alone. Intervals are marginal, and no verdict is made of
    them.

    A pair is an example x item that both arms have. Each side of a pair is a mean over seeds and samples, so an
    unfitted control with one seed is paired with all seeds of the arm. One row without a value, in any seed or sample
    of either side, takes the pair out. `n_pairs`, `n_missing` (clusters without a complete pair), `wins`, `losses` and
    `ties` count clusters. A win is the arm's, whatever the metric's direction; `difference` keeps the metric's own
    sign.
    """
    return [
        {
            **{"arm": arm, "control": control, "eval": eval_name, "metric": metric},
            **{"primary": primary, "direction": direction},
            **counts(table, eval_name, metric, (arm, control)),
            **_estimate(table.contrast(eval_name, metric, arm, control), "difference"),
        }
        for arm in table.arms
        for control in controls.get(arm, ())
        for eval_name in table.metrics
        if eval_name in table.arms[arm] and eval_name in table.arms[control]
        for metric, (primary, direction) in table.metrics[eval_name].items()
        if direction != 0 and (primary or secondary)
    ]


def pairs(table: Table) -> list[Row]:
    """Rows of table `pairs`: every two arms once, as in `compare`, on primary metrics alone. With more than MOST_ARMS
    arms there are none: pairs grow with the square of the arms, and nobody reads so large a map."""
    arms = list(table.arms)
    if len(arms) > MOST_ARMS:
        return []
    earlier = {arm: arms[:place] for place, arm in enumerate(arms)}
    return compare(table, earlier, secondary=False)


def counts(table: Table, eval_name: str, metric: str, sides: tuple[str, str], over: str | None = None) -> Row:
    """How many clusters are compared, are missing, and were won, lost and tied by the first arm."""
    difference = table.contrast(eval_name, metric, *sides, over)
    if difference is None:
        clusters = table.arrays(eval_name, metric, over).n_clusters
        return dict.fromkeys(("n_pairs", "n_seeds", "wins", "losses", "ties"), 0) | {"n_missing": clusters}
    up, down, n = difference.wins, difference.losses, difference.clusters
    wins, losses = (up, down) if table.metrics[eval_name][metric][1] > 0 else (down, up)
    return {
        **{"n_pairs": n, "n_missing": difference.missing, "n_seeds": difference.seeds},
        **{"wins": wins, "losses": losses, "ties": n - up - down},
    }


def _estimate(estimate: Contrast | None, name: str) -> Row:
    """The value with its standard error and marginal 95% interval. `interval` names the interval, or says why there is
    none."""
    row: Row = dict.fromkeys((name, "se", "ci_low", "ci_high"))
    if estimate is None:
        return {**row, "interval": "none: no data"}
    row[name] = rounded(estimate.difference)
    if not estimate.known:
        few = estimate.clusters < contrasts.FEWEST_CLUSTERS
        reason = f"fewer than {contrasts.FEWEST_CLUSTERS} examples" if few else "no variation"
        return {**row, "interval": f"none: {reason}"}
    low, high = estimate.interval(Z)
    method = ("wilson" if name == "mean" else "tango") if estimate.score else "t"
    scope = ", one seed" if estimate.v_seeds is None else ", one run" if estimate.one_run else ""
    ends = {"ci_low": rounded(low), "ci_high": rounded(high)}
    return {**row, "se": rounded(estimate.se), **ends, "interval": method + scope}


def _arrays(rows: pl.DataFrame, fitted: frozenset[str], single: frozenset[str]) -> Scores:
    """The rows of one eval and metric as arrays. `part` is the item's number, -1 where an example has no items. A
    response that failed has no items, and takes out all items of its example."""
    rows = rows.with_columns(part=pl.col("item").fill_null(-1))
    lost = rows.filter(pl.col("value").is_null())
    lost_examples = lost.filter(pl.col("item").is_null()).select("arm", "seed", "example_id").unique()
    with_items = rows.filter(pl.col("part") >= 0)["example_id"].unique()
    items = (
        rows.filter((pl.col("part") >= 0) | ~pl.col("example_id").is_in(with_items.implode()))
        .select("cluster", "example_id", "part")
        .unique()
        .sort("cluster", "example_id", "part")
        .with_row_index("row")
    )
    columns = rows.select("arm", "seed").unique().sort("arm", "seed").with_row_index("column")
    cells = (
        rows.join(lost_examples, on=["arm", "seed", "example_id"], how="anti")
        .group_by("arm", "seed", "example_id", "part")
        .agg(pl.col("value").mean(), nulls=pl.col("value").is_null().any())
        .filter(~pl.col("nulls"))
        .join(items, on=["example_id", "part"])
        .join(columns, on=["arm", "seed"])
    )
    all_values = np.full((len(items), len(columns)), np.nan)
    all_values[cells["row"].to_numpy(), cells["column"].to_numpy()] = cells["value"].to_numpy()
    seeds: dict[str, tuple[int, ...]] = {}
    values: dict[str, Floats] = {}
    for arm, of_arm, first in columns.group_by("arm").agg("seed", pl.col("column").min()).iter_rows():
        seeds[arm] = tuple(of_arm)
        values[arm] = np.ascontiguousarray(all_values[:, first : first + len(of_arm)])
    clusters = items["cluster"].rle_id().cast(pl.Int64).to_numpy()
    return Scores(clusters, values, seeds, fitted & set(values), single & set(values))


def _checked(
    scores: pl.DataFrame | pa.Table, examples: pl.DataFrame, metrics: Metrics
) -> dict[tuple[Any, ...], pl.DataFrame]:
    """(eval, metric) -> its scores with a column `cluster`, sorted by cluster and key. Texts are numbered in their
    order, so that rows are sorted and joined by numbers. Raises ImprintError for scores that cannot be counted."""
    frame = scores if isinstance(scores, pl.DataFrame) else pl.DataFrame(pl.from_arrow(scores))
    if not set(COLUMNS) <= set(frame.columns):
        raise ImprintError(
            f"the scores have the columns {', '.join(frame.columns)}; write {', '.join(SCHEMAS['scores'].names)}"
        )
    frame = frame.select(COLUMNS)
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
    examples = examples.with_columns(_numbered(examples["cluster"]))
    parts = frame.with_columns(map(_numbered, frame.select("arm", "example_id"))).partition_by(
        "eval", "metric", as_dict=True
    )
    for eval_name, metric in list(parts):
        known = examples.filter(pl.col("eval") == eval_name).select("example_id", "cluster")
        parts[eval_name, metric] = _sorted(parts[eval_name, metric], known)
    return parts


def _sorted(rows: pl.DataFrame, clusters: pl.DataFrame) -> pl.DataFrame:
    """The rows of one eval and metric with their clusters, sorted by cluster and key. Raises ImprintError for two rows
    with one key, and for an example that is not in `clusters`."""
    clusters = clusters.with_columns(pl.col("example_id").cast(rows.schema["example_id"], strict=False))
    rows = rows.join(clusters.drop_nulls("example_id"), on="example_id", how="left").sort("cluster", *_KEY)
    duplicates = rows.filter(pl.all_horizontal(pl.col(key).eq_missing(pl.col(key).shift()) for key in _KEY))
    if len(duplicates):
        row = duplicates.select(*_KEY, "eval", "metric").row(0, named=True)
        raise ImprintError(f"the scores hold two rows for {row}; delete the scores file of that run and score again")
    unknown = rows.filter(pl.col("cluster").is_null())
    if len(unknown):
        row = unknown.row(0, named=True)
        raise ImprintError(
            f"eval '{row['eval']}', arm '{row['arm']}': the scores hold the example {row['example_id']}, which the "
            "eval's dataset lacks; delete the scores file of that run and score again"
        )
    return rows


def _numbered(texts: pl.Series) -> pl.Series:
    """Texts as numbers in their alphabetic order."""
    return texts.cast(pl.Enum(texts.unique().cast(pl.String).sort()))


def rounded(value: float | None) -> float | None:
    """Twelve significant digits, because the last bits of a matrix product depend on the number of threads; None for a
    value that is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.12g}")
