"""The behaviours of arms: the share of responses that show each behaviour, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals
from imprint.scores import behaviours, judged_behaviours

if TYPE_CHECKING:
    import polars as pl


TABLES = ("summary",)

CELL_WIDTH = 92
CELL_HEIGHT = 34

# Metric -> label of its row. Each behaviour has a row for the rules and one for the judge below it.
ROWS = {
    metric: f"{name.replace('_', ' ')}, {by}"
    for name in behaviours.METRICS
    for metric, by in ((name, "by rules"), (f"judged_{name}", "by judge"))
}


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One heat map for each eval that has behaviours: rows are behaviours, columns are arms."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    table = _shares(tables["summary"])
    panels = []
    for name in evals:
        rows = table.filter(pl.col("eval") == name)
        if len(rows):
            panels.append(_panel(rows, evals, name, [arm for arm in arms if arm in set(rows["arm"])]))
    if not panels:
        return None
    margin = {"left": 5, "top": 5, "bottom": 5, "right": round(0.75 * drawing.LETTER * max(map(len, arms)))}
    return drawing.stack(panels).properties(padding=margin)


def _shares(summary: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return summary.filter(pl.col("metric").is_in(list(ROWS)))


def _panel(rows: pl.DataFrame, evals: Evals, name: str, shown: list[str]) -> Any:
    import altair as alt

    from imprint.charts import _drawing as drawing

    values = [
        {
            "arm": row["arm"],
            "behaviour": ROWS[row["metric"]],
            "share": row["mean"],
            "interval": f"{row['ci_low']:.2f} to {row['ci_high']:.2f}" if row["ci_low"] is not None else "",
            "missing": "none scored" if row["n_attempted"] else "not judged",
        }
        for row in rows.to_dicts()
    ]
    order = [label for metric, label in ROWS.items() if metric in set(rows["metric"])]
    room = drawing.LETTER * max(map(len, shown))
    top = alt.Axis(orient="top", labelAngle=-35, ticks=False, domain=False, labelLimit=room, minExtent=0.62 * room)
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("arm:N", title=None, sort=None, scale=alt.Scale(domain=shown), axis=top),
        y=alt.Y("behaviour:N", **drawing.rows_axis(order)),
    )
    shade = alt.Color("share:Q", scale=alt.Scale(scheme="cividis", domain=[0, 1]), legend=None)
    ink = alt.condition("datum.share > 0.5", alt.value("#111111"), alt.value("#FFFFFF"))
    scored = base.transform_filter("isValid(datum.share)")
    layers = alt.layer(
        scored.mark_rect(stroke=None).encode(color=shade),
        scored.mark_text(fontSize=12, dy=-6).encode(text=alt.Text("share:Q", format=".2f"), color=ink),
        scored.mark_text(fontSize=9, dy=8).encode(text="interval:N", color=ink),
        base.transform_filter("!isValid(datum.share)")
        .mark_text(fontSize=10, color=drawing.INK)
        .encode(text="missing:N"),
    )
    return layers.properties(
        width=CELL_WIDTH * len(shown),
        height=CELL_HEIGHT * len(order),
        title=drawing.eval_title(evals, name, "share of responses, 95% interval"),
    )


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: how many arms are shown, the fewest responses behind a share, how many questions the judge was
    asked, how many answers could not be read, how many never came, and whether no judge was there."""
    import polars as pl

    rows = _shares(tables["summary"])
    judged = rows.filter(pl.col("metric").is_in(list(judged_behaviours.METRICS)))
    return {
        "arms": rows["arm"].n_unique(),
        "fewest": rows.drop_nulls("mean")["n_scored"].min() or 0,
        "asked": int(judged["n_attempted"].sum()),
        "unparsed": int(judged["n_unparsed"].sum()),
        "failed": int(judged["n_error"].sum()),
        "unjudged": len(judged) > 0 and not judged["n_attempted"].sum(),
    }
