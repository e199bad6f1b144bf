"""How alike task vectors are by layer and kind of module: the cosine of each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("analyses",)


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One heat map for each pair, all on one scale. A title has the cosine and sign agreement over the complete
    vectors."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    means = _means(tables["analyses"])
    cells = means.filter((pl.col("quantity") == "cosine") & (pl.col("kind") != "all"))
    largest = max(map(abs, cells["value"].to_list()), default=0.0) or 1.0
    panels = []
    for pair in cells.select("analysis", "arm", "other").unique(maintain_order=True).iter_rows(named=True):
        over_all = _of(means, pair).filter(pl.col("kind") == "all")
        words = ", ".join(f"{q.replace('_', ' ')} {v:.2f}" for q, v in over_all.select("quantity", "value").iter_rows())
        name = f"{pair['arm']} and {pair['other']}: {words}"
        panels.append(drawing.depth_map(_of(cells, pair), name, "cosine by block", largest))
    return drawing.stack(panels) if panels else None


def _of(rows: pl.DataFrame, pair: Mapping[str, str]) -> pl.DataFrame:
    import polars as pl

    return rows.filter(*(pl.col(column) == value for column, value in pair.items()))


def _means(analyses: pl.DataFrame) -> pl.DataFrame:
    """The rows of pairs, with the mean over seeds as value, in the table's order."""
    import polars as pl

    keys = ["analysis", "arm", "other", "layer", "kind", "quantity"]
    rows = analyses.filter(pl.col("quantity").is_in(["cosine", "sign_agreement"]))
    rows = rows.with_columns(pl.col("kind").str.strip_suffix(".weight"))
    return rows.group_by(keys, maintain_order=True).agg(pl.col("value").mean())


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the number of pairs and seeds, and the norm of each vector."""
    import polars as pl

    over_all = tables["analyses"].filter(pl.col("kind") == "all")
    norms = over_all.filter(pl.col("quantity") == "norm")
    norms = norms.group_by("arm", maintain_order=True).agg(pl.col("value").mean())
    return {
        "pairs": len(over_all.filter(pl.col("quantity") == "cosine").select("arm", "other").unique()),
        "norms": ", ".join(f"{arm} {value:.3g}" for arm, value in norms.iter_rows()),
        "seeds": tables["analyses"]["seed"].n_unique(),
    }
