"""Forest plot of explorations: each arm minus its control on the same examples, for the primary metrics, with marginal
95% intervals. It has no verdicts and therefore none of their colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("comparisons",)


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One panel for each eval, one row for each comparison, and a line at 0. A comparison without pairs is left out."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    table = tables["comparisons"].filter(pl.col("primary") & (pl.col("n_pairs") > 0))
    table = table.with_columns(pair=pl.col("arm") + " \N{MINUS SIGN} " + pl.col("control"))
    panels = []
    for name in evals:
        rows = table.filter(pl.col("eval") == name)
        if len(rows):
            panels.append(_panel(rows, _ordered(rows, arms), _ordered(table, arms), evals))
    return drawing.stack(panels) if panels else None


def _ordered(rows: pl.DataFrame, arms: Sequence[str]) -> list[str]:
    """The pairs, sorted by `arms`, then in the table's order."""
    import polars as pl

    return [pair for arm in arms for pair in rows.filter(pl.col("arm") == arm)["pair"].unique(maintain_order=True)]


def _panel(rows: pl.DataFrame, pairs: list[str], longest: list[str], evals: Evals) -> Any:
    import altair as alt
    import polars as pl

    from imprint.charts import _drawing as drawing

    first = rows.row(0, named=True)
    rows = rows.with_columns(weights=pl.col("interval").str.ends_with("one seed"))
    columns = ["pair", "difference", "ci_low", "ci_high", "weights"]
    y = alt.Y("pair:N", **drawing.rows_axis(pairs, longest))
    base = alt.Chart(alt.InlineData(values=rows.select(columns).to_dicts())).encode(y=y)
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=drawing.INK, strokeDash=[3, 3], opacity=0.7)
    layers = alt.layer(
        zero.encode(x=drawing.values_axis("zero")),
        base.transform_filter("isValid(datum.ci_low)")
        .mark_rule(strokeWidth=2, color=drawing.UNDECIDED)
        .encode(x=drawing.values_axis("ci_low"), x2="ci_high:Q"),
        base.mark_point(filled=True, size=80, opacity=1, color=drawing.UNDECIDED)
        .transform_filter("!datum.weights")
        .encode(x=drawing.values_axis("difference")),
        base.mark_point(filled=False, size=80, opacity=1, strokeWidth=2, color=drawing.UNDECIDED)
        .transform_filter("datum.weights")
        .encode(x=drawing.values_axis("difference")),
    )
    side = "right" if first["direction"] == 1 else "left"
    note = f"difference in {first['metric']}; the arm is better to the {side}"
    return layers.properties(
        width=drawing.WIDTH, height=drawing.ROW * len(pairs), title=drawing.eval_title(evals, first["eval"], note)
    )


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: the range of n, how many clusters are missing, and whether single training runs are compared."""
    import polars as pl

    table = tables["comparisons"].filter(pl.col("primary"))
    paired = table.filter(pl.col("n_pairs") > 0)
    return {
        "n_low": paired["n_pairs"].min() or 0,
        "n_high": paired["n_pairs"].max() or 0,
        "n_missing": int(table["n_missing"].sum()),
        "weights": bool(paired["interval"].str.ends_with("one seed").any()),
    }
