"""Mean of each eval's primary metric by arm, with its 95% interval; dots are single training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("summary", "scores")


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One panel for each eval, one row for each arm. The row of an arm without a scored response is empty."""
    import polars as pl

    from imprint.charts import _drawing as drawing
    from imprint.charts import _seeds

    table = tables["summary"].filter(pl.col("primary"))
    runs = _seeds.means(tables["scores"], table)
    panels = []
    for name in evals:
        rows = table.filter(pl.col("eval") == name)
        if rows["mean"].is_not_null().any():
            panels.append(_panel(rows, runs.filter(pl.col("eval") == name), arms, evals))
    return drawing.stack(panels) if panels else None


def _panel(rows: pl.DataFrame, runs: pl.DataFrame, arms: Sequence[str], evals: Evals) -> Any:
    import altair as alt
    import polars as pl

    from imprint.charts import _drawing as drawing

    first, shown = rows.row(0, named=True), [arm for arm in arms if arm in set(rows["arm"])]
    scales = drawing.arm_colour(arms)
    zero = first["direction"] == 1 and rows.select(pl.min_horizontal("mean", "ci_low")).min().item() >= 0
    y = alt.Y("arm:N", **drawing.rows_axis(shown, arms))
    colour = alt.Color("arm:N", scale=scales["color"], legend=None)
    shape = alt.Shape("arm:N", scale=scales["shape"], legend=None)
    base = alt.Chart(alt.InlineData(values=list(map(_values, rows.to_dicts())))).encode(y=y, color=colour)
    seeds = [{**row, "told": f"{row['arm']}, seed {row['seed']}: {row['value']:.3f}"} for row in runs.to_dicts()]
    layers = alt.layer(
        base.transform_filter("isValid(datum.ci_low)")
        .mark_rule(strokeWidth=2, aria=False)
        .encode(x=drawing.values_axis("ci_low", zero=zero), x2="ci_high:Q"),
        base.transform_filter("isValid(datum.mean)")
        .mark_point(filled=True, size=90, opacity=1)
        .encode(x=drawing.values_axis("mean", zero=zero), shape=shape, **drawing.told()),
        drawing.dots(seeds, y, colour, zero=zero),
    )
    note = f"{first['metric']}, {drawing.better_is(first['direction'])}"
    return layers.properties(
        width=drawing.WIDTH, height=drawing.ROW * len(shown), title=drawing.eval_title(evals, first["eval"], note)
    )


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    from imprint.report import numbers

    ends = (
        "no interval"
        if row["ci_low"] is None
        else f"{numbers.number(row['ci_low'])} to {numbers.number(row['ci_high'])}"
    )
    return {
        **{key: row[key] for key in ("arm", "mean", "ci_low", "ci_high")},
        "told": f"{row['arm']} on {row['eval']}: {row['metric']} {numbers.number(row['mean'])} ({ends}), "
        f"{row['n_examples']} examples",
        "address": numbers.browse(row["eval"], row["arm"]),
    }


INTERVALS = {
    "wilson": "Wilson's score interval for 0/1 values with one answer an example",
    "t": "Student's t over clusters of examples and training seeds",
    "none": "none where there are too few examples or all values are equal",
}
"""How the column `interval` begins -> what it means."""


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the range of n, the kinds of intervals in words, and how many responses failed."""
    import polars as pl

    table = tables["summary"].filter(pl.col("primary"))
    scored = table.filter(pl.col("n_scored") > 0)
    return {
        "n_low": scored["n_examples"].min() or 0,
        "n_high": scored["n_examples"].max() or 0,
        "intervals": " and ".join(
            words for key, words in INTERVALS.items() if table["interval"].str.starts_with(key).any()
        ),
        "weights": bool(table["interval"].str.contains("one (seed|run)$").any()),
        "n_error": int(table["n_error"].sum()),
    }
