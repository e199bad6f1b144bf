"""IFEval's instruction-level strict accuracy by type and arm: which constraints an arm gains and loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imprint.charts import Evals

if TYPE_CHECKING:
    import polars as pl

TABLES = ("scores",)

METRIC = "instruction_strict"
CELL_WIDTH = 76
CELL_HEIGHT = 22


def chart(tables: Mapping[str, pl.DataFrame], arms: Sequence[str], evals: Evals) -> Any | None:
    """One heat map for each eval: rows are types with their number of instructions, columns are arms, cells are shares
    of instructions followed. A cell without a scored instruction is empty."""
    import polars as pl

    from imprint.charts import _drawing as drawing

    table = _followed(tables["scores"])
    panels = []
    for name in evals:
        rows = table.filter(pl.col("eval") == name)
        if len(rows):
            panels.append(_panel(rows, evals, name, [arm for arm in arms if arm in set(rows["arm"])]))
    if not panels:
        return None
    # The slanted name of the last arm extends beyond the plot.
    margin = {"left": 5, "top": 5, "bottom": 5, "right": round(0.75 * drawing.LETTER * max(map(len, arms)))}
    return drawing.stack(panels).properties(padding=margin)


def _followed(scores: pl.DataFrame) -> pl.DataFrame:
    """Columns eval, arm, type, n (distinct instructions of the type) and share (a mean over seeds and samples too)."""
    import polars as pl

    rows = scores.filter(
        (pl.col("metric") == METRIC) & pl.col("item_label").is_not_null() & pl.col("value").is_not_null()
    )
    shares = rows.group_by("eval", "arm", pl.col("item_label").alias("type")).agg(share=pl.col("value").mean())
    counts = rows.group_by("eval", pl.col("item_label").alias("type")).agg(n=pl.struct("example_id", "item").n_unique())
    return shares.join(counts, on=["eval", "type"]).sort("eval", "type", "arm")


def _panel(rows: pl.DataFrame, evals: Evals, name: str, shown: list[str]) -> Any:
    import altair as alt

    from imprint.charts import _drawing as drawing

    held_out = set(evals[name].held_out)
    # Trained types come first. Held-out types are marked if the panel has both.
    mark = "" if set(rows["type"]) <= held_out else "held out, "
    values = [
        {**row, "label": f"{row['type']} ({mark if row['type'] in held_out else ''}n={row['n']})"}
        for row in sorted(rows.to_dicts(), key=lambda row: (row["type"] in held_out, row["type"]))
    ]
    room = drawing.LETTER * max(map(len, shown))
    top = alt.Axis(orient="top", labelAngle=-35, ticks=False, domain=False, labelLimit=room, minExtent=0.62 * room)
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("arm:N", title=None, sort=None, scale=alt.Scale(domain=shown), axis=top),
        y=alt.Y("label:N", **drawing.rows_axis(list(dict.fromkeys(row["label"] for row in values)))),
    )
    # Cividis is evenly lighter from 0 to 1 with all kinds of colour vision, so the ink of the numbers switches once.
    shade = alt.Color("share:Q", scale=alt.Scale(scheme="cividis", domain=[0, 1]), legend=None)
    ink = alt.condition("datum.share > 0.5", alt.value("#111111"), alt.value("#FFFFFF"))
    layers = alt.layer(
        base.mark_rect(stroke=None).encode(color=shade),
        base.mark_text(fontSize=11).encode(text=alt.Text("share:Q", format=".2f"), color=ink),
    )
    kinds = len({row["type"] for row in values})
    return layers.properties(
        width=CELL_WIDTH * len(shown),
        height=CELL_HEIGHT * kinds,
        title=drawing.eval_title(evals, name, "share followed, strict"),
    )


def facts(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """For the caption: how many types and instructions there are, and the fewest of one type."""
    counts = _followed(tables["scores"]).select("eval", "type", "n").unique()
    return {
        "types": counts["type"].n_unique(),
        "instructions": int(counts["n"].sum()),
        "fewest": counts["n"].min() or 0,
    }
