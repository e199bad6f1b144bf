"""Means of single training runs, which charts draw as dots beside the mean of all runs."""

from __future__ import annotations

import polars as pl

_KEY = ["eval", "metric", "arm", "seed"]


def means(scores: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Columns eval, metric, arm, seed, value: the mean of each seed of the arms in `rows` (columns eval, metric, arm)
    that have several seeds."""
    runs = _items(scores).join(rows.select("eval", "metric", "arm").unique(), on=["eval", "metric", "arm"], how="semi")
    return _several(runs.group_by(_KEY).agg(pl.col("value").mean()), ["eval", "metric", "arm"])


def differences(scores: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Columns eval, metric, arm, control, seed, value: arm minus control on the items of both, for each seed of the
    arms in `rows` (columns eval, metric, arm, control) that have several seeds. A control with one seed is paired with
    every seed of its arm."""
    items = _items(scores)
    seeds = items.group_by("eval", "metric", "arm").agg(pl.col("seed").n_unique().alias("n_seeds"))
    controls = items.join(seeds, on=["eval", "metric", "arm"])
    pairs = ["eval", "metric", "arm", "control"]
    both = rows.select(pairs).unique().join(items, on=["eval", "metric", "arm"])
    both = both.join(
        controls.rename({"arm": "control", "value": "value_control", "seed": "seed_control"}),
        on=["eval", "metric", "control", "example_id", "part"],
    ).filter((pl.col("seed") == pl.col("seed_control")) | (pl.col("n_seeds") == 1))
    gap = (pl.col("value") - pl.col("value_control")).mean().alias("value")
    return _several(both.group_by([*pairs, "seed"]).agg(gap), pairs)


def _items(scores: pl.DataFrame) -> pl.DataFrame:
    """The value of each item, a mean over samples; what could not be scored is left out."""
    rows = scores.drop_nulls("value").with_columns(part=pl.col("item").fill_null(-1))
    return rows.group_by([*_KEY, "example_id", "part"]).agg(pl.col("value").mean())


def _several(rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """The rows whose keys have several seeds, in order."""
    return rows.filter(pl.col("seed").n_unique().over(keys) > 1).sort([*keys, "seed"])
