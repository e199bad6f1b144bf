"""Forest plot of the questions: a row for each question, with the difference and the simultaneous interval of all of
them. Colour and shape say the verdict; a margin is a grey band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("answers",)


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One panel for each eval and metric, one row for each question, and a line at 0; None without questions."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    table = tables["answers"].filter(pl.col("difference").is_not_null())
    names = table["question"].unique(maintain_order=True).to_list()
    panels = [
        _panel(rows, names, evals)
        for _, rows in table.partition_by("eval", "metric", as_dict=True, maintain_order=True).items()
    ]
    return drawing.stack(panels) if panels else None


def _panel(rows: pl.DataFrame, names: list[str], evals: Evals) -> Any:
    import altair as alt
    import polars as pl

    from imprint.charts import _drawing as drawing
    from imprint.statistics.questions import outcome

    first = rows.row(0, named=True)
    welcome = [outcome(row["verdict"], row["direction"]) for row in rows.iter_rows(named=True)]
    rows = rows.with_columns(pl.Series("outcome", welcome), below=-pl.col("margin"))
    questions = rows["question"].to_list()
    y = alt.Y("question:N", **drawing.rows_axis(questions, names))
    outcomes = ["good", "open", "bad"]
    colours = alt.Scale(domain=outcomes, range=[drawing.BETTER, drawing.UNDECIDED, drawing.WORSE])
    shapes = alt.Scale(domain=outcomes, range=["triangle-up", "circle", "triangle-down"])
    columns = ["question", "difference", "ci_low", "ci_high", "outcome", "margin", "below"]
    data = alt.InlineData(values=rows.select(columns).to_dicts())
    colour = alt.Color("outcome:N", scale=colours, legend=None)
    base = alt.Chart(data).encode(y=y)
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=drawing.INK, strokeDash=[3, 3], opacity=0.7)
    layers = alt.layer(
        base.transform_filter("datum.margin > 0")
        .mark_bar(color=drawing.UNDECIDED, opacity=0.2, height=drawing.ROW - 6)
        .encode(x=drawing.values_axis("below"), x2="margin:Q"),
        zero.encode(x=drawing.values_axis("zero")),
        base.transform_filter("isValid(datum.ci_low)")
        .mark_rule(strokeWidth=2)
        .encode(x=drawing.values_axis("ci_low"), x2="ci_high:Q", color=colour),
        base.mark_point(filled=True, size=100, opacity=1).encode(
            x=drawing.values_axis("difference"),
            color=colour,
            shape=alt.Shape("outcome:N", scale=shapes, legend=None),
        ),
    )
    side = "right" if first["direction"] == 1 else "left"
    note = f"difference in {first['metric']}; the arm is better to the {side}"
    return layers.properties(
        width=drawing.WIDTH, height=drawing.ROW * len(questions), title=drawing.eval_title(evals, first["eval"], note)
    )


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: how many questions there are, and whether one has a margin."""
    table = tables["answers"]
    return {"questions": len(table), "margins": bool((table["margin"] > 0).any())}
