"""Forest plot of explorations: each arm minus its control on the same examples, for the primary metrics, with marginal
95% intervals; dots are single training runs. Colours say on which side of 0 an interval lies, which is no verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("comparisons", "scores")


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One panel for each eval, one row for each comparison, and a line at 0. A comparison without pairs is left out."""
    import polars as pl

    from imprint.charts import _drawing as drawing
    from imprint.charts import _seeds

    pair = (pl.col("arm") + " \N{MINUS SIGN} " + pl.col("control")).alias("pair")
    table = tables["comparisons"].filter(pl.col("primary") & (pl.col("n_pairs") > 0)).with_columns(pair)
    runs = _seeds.differences(tables["scores"], table).with_columns(pair)
    panels = []
    for name in evals:
        rows = table.filter(pl.col("eval") == name)
        if len(rows):
            of_runs = runs.filter(pl.col("eval") == name)
            panels.append(_panel(rows, of_runs, _ordered(rows, arms), _ordered(table, arms), evals))
    return drawing.stack(panels) if panels else None


def _ordered(rows: pl.DataFrame, arms: Sequence[str]) -> list[str]:
    """The pairs, sorted by `arms`, then in the table's order."""
    import polars as pl

    return [pair for arm in arms for pair in rows.filter(pl.col("arm") == arm)["pair"].unique(maintain_order=True)]


def _panel(rows: pl.DataFrame, runs: pl.DataFrame, pairs: list[str], longest: list[str], evals: Evals) -> Any:
    import altair as alt

    from imprint.charts import _drawing as drawing

    first = rows.row(0, named=True)
    scales = drawing.outcome_colour()
    colour = alt.Color("outcome:N", scale=scales["color"], legend=None)
    shape = alt.Shape("outcome:N", scale=scales["shape"], legend=None)
    y = alt.Y("pair:N", **drawing.rows_axis(pairs, longest))
    base = alt.Chart(alt.InlineData(values=list(map(_values, rows.to_dicts())))).encode(y=y, color=colour)
    point = base.encode(x=drawing.values_axis("difference"), shape=shape, **drawing.told())
    seeds = [
        {**row, "outcome": "open", "told": f"{row['pair']}, seed {row['seed']}: {row['value']:+.3f}"}
        for row in runs.to_dicts()
    ]
    layers = alt.layer(
        drawing.zero_line(),
        base.transform_filter("isValid(datum.ci_low)")
        .mark_rule(strokeWidth=2, aria=False)
        .encode(x=drawing.values_axis("ci_low"), x2="ci_high:Q"),
        point.transform_filter("!datum.weights").mark_point(filled=True, size=80, opacity=1),
        point.transform_filter("datum.weights").mark_point(filled=False, size=80, opacity=1, strokeWidth=2),
        drawing.dots(seeds, y, colour),
    )
    side = "right" if first["direction"] == 1 else "left"
    note = f"difference in {first['metric']}; the arm is better to the {side}"
    return layers.properties(
        width=drawing.WIDTH, height=drawing.ROW * len(pairs), title=drawing.eval_title(evals, first["eval"], note)
    )


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    from imprint.report import numbers
    from imprint.statistics.questions import side

    return {
        **{key: row[key] for key in ("pair", "difference", "ci_low", "ci_high")},
        "weights": row["interval"].endswith(("one seed", "one run")),
        "outcome": side(row["ci_low"], row["ci_high"], row["direction"]),
        "told": numbers.told(row),
        "address": numbers.browse(row["eval"], row["arm"], row["control"]),
    }


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the range of n, how many clusters are missing, and whether single training runs are compared."""
    import polars as pl

    table = tables["comparisons"].filter(pl.col("primary"))
    paired = table.filter(pl.col("n_pairs") > 0)
    return {
        "n_low": paired["n_pairs"].min() or 0,
        "n_high": paired["n_pairs"].max() or 0,
        "n_missing": int(table["n_missing"].sum()),
        "weights": bool(paired["interval"].str.contains("one (seed|run)$").any()),
    }
