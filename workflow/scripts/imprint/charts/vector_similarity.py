"""How alike task vectors are over depth and kind of module: the cosine of each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from imprint import charts

TABLES = ("analyses",)


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Sequence[Any]) -> Any | None:
    """One heat map a pair, all on one scale; the titles have the whole vectors' cosine and sign agreement."""
    found = _means(tables["analyses"])
    cells = found.filter((pl.col("quantity") == "cosine") & (pl.col("kind") != "all"))
    largest = max(map(abs, cells["value"].to_list()), default=0.0) or 1.0
    panels = []
    for pair in cells.select("analysis", "arm", "other").unique(maintain_order=True).iter_rows(named=True):
        whole = _of(found, pair).filter(pl.col("kind") == "all")
        words = ", ".join(f"{q.replace('_', ' ')} {v:.2f}" for q, v in whole.select("quantity", "value").iter_rows())
        name = f"{pair['arm']} and {pair['other']}: {words}"
        panels.append(charts.depth_map(_of(cells, pair), name, "cosine by block", largest))
    return charts.stack(panels) if panels else None


def _of(rows: pl.DataFrame, pair: Mapping[str, str]) -> pl.DataFrame:
    return rows.filter(*(pl.col(column) == value for column, value in pair.items()))


def _means(analyses: pl.DataFrame) -> pl.DataFrame:
    """The rows of pairs, their values the mean over seeds, in the table's order."""
    keys = ["analysis", "arm", "other", "layer", "kind", "quantity"]
    rows = analyses.filter(pl.col("quantity").is_in(["cosine", "sign_agreement"]))
    rows = rows.with_columns(pl.col("kind").str.strip_suffix(".weight"))
    return rows.group_by(keys, maintain_order=True).agg(pl.col("value").mean())


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the pairs, and each vector's norm."""
    whole = tables["analyses"].filter(pl.col("kind") == "all")
    norms = whole.filter(pl.col("quantity") == "norm").group_by("arm", maintain_order=True).agg(pl.col("value").mean())
    return {
        "pairs": len(whole.filter(pl.col("quantity") == "cosine").select("arm", "other").unique()),
        "norms": ", ".join(f"{arm} {value:.3g}" for arm, value in norms.iter_rows()),
        "seeds": tables["analyses"]["seed"].n_unique(),
    }
