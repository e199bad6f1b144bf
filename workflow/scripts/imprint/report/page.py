"""The report: one HTML file that needs no network and no other file. Where it has no room for all responses, a page of
responses stands beside it.

Jinja escapes all text from configs, models and data. The browser's text is JSON, which the page shows by `textContent`
only. A content security policy allows the page's own scripts and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import polars as pl

from imprint.report import PAGE_SCRIPT, SCRIPTS, STYLES, copies, grids, matrix, numbers, verdicts
from imprint.report.facts import Provenance, Spec
from imprint.runtime.errors import ImprintError
from imprint.statistics import questions

NEEDED = (
    "answers",
    "summary",
    "comparisons",
    "costs",
    "contamination",
    "contamination_rows",
    "synthesis",
    "scores",
    "generations",
)
Row = dict[str, Any]
LISTED = 50  # contaminated examples that the page lists
FILTERS = {
    "number": numbers.number,
    "signed": numbers.signed,
    "duration": numbers.duration,
    "interval": lambda row: numbers.interval(row["ci_low"], row["ci_high"]),
    "sentence": partial(verdicts.sentence, written=numbers.signed),
    "notes": partial(verdicts.notes, written=numbers.signed),
    "items": lambda row, show="all": numbers.browse(row["eval"], row["arm"], row["control"], show),
}


def render(
    template: Path,
    tables: Mapping[str, pl.DataFrame],
    charts: Mapping[str, tuple[str | None, str]],
    facts: Spec,
    provenance: Provenance,
    data: Mapping[str, Any],
    beside: str | None = None,
) -> str:
    """The report as HTML text.

    `template`: resources/report.html.jinja, with the files of ASSETS beside it. `tables`: polars frames of the tables
    in NEEDED. `charts`: title -> (SVG text, or None if there is nothing to draw; caption as HTML); the chart "answers"
    stands at the top. `data`: what the browser of responses holds (`browser.collect`). `beside`: the name of the page
    of responses, if there is one. A part of the page whose table is empty is left out. Raises ImprintError if a table
    is missing.
    """
    missing = [name for name in NEEDED if name not in tables]
    if missing:
        raise ImprintError(f"the report needs the table(s) {', '.join(missing)}; pass them as polars frames")
    answers = tables["answers"].to_dicts()
    comparisons, summary = (in_order(tables[name].to_dicts(), facts) for name in ("comparisons", "summary"))
    comparisons = [row for row in comparisons if row["n_pairs"] or row["n_missing"]]  # else the metric has no rows
    versions = tables["scores"].group_by("eval").agg(pl.col("eval_version").unique().sort().str.join("; "))
    columns, cells = matrix.columns(summary, facts), matrix.cells(summary, comparisons, facts)
    counts = {(row["arm"], row["eval"], row["metric"]): row for row in summary}
    figures = {
        title: (markupsafe.Markup(svg) if svg else None, markupsafe.Markup(caption))
        for title, (svg, caption) in charts.items()
    }
    return (
        _environment(template)
        .get_template(template.name)
        .render(
            **_frame(template, data, [PAGE_SCRIPT], facts, first_pair([*answers, *comparisons], facts)),
            beside=beside,
            provenance=provenance,
            forest=figures.pop("answers", None),
            charts=figures,
            empty=[title for title, (picture, _) in figures.items() if not picture],
            answers=answers,
            introduced=_introduced(answers, facts),
            shares=[_shares(row, counts) for row in answers],
            levels=[_levels(row, counts) for row in answers],
            unmeasured=matrix.unmeasured(cells, facts),
            outcome=questions.outcome,
            tally=Counter(row["verdict"] for row in answers),
            columns=columns,
            cells=cells,
            spent=matrix.spent(tables["costs"], tables["generations"], facts),
            gained=[row for row in comparisons if _side(row) == "good"],
            lost=[row for row in comparisons if _side(row) == "bad"],
            side=_side,
            primary=_by_pair([row for row in comparisons if row["primary"]]),
            secondary=_by_pair([row for row in comparisons if not row["primary"]]),
            copied=embedded(
                {
                    "answers": copies.forms(grids.of_answers(answers)),
                    "matrix": copies.forms(grids.of_matrix(columns, cells, facts)),
                    "comparisons": copies.forms(grids.of_comparisons(comparisons)),
                }
            ),
            adapted=_adapted(tables["contamination"], facts),
            summary=_by_arm(summary),
            costs=_costs(tables["costs"]),
            seconds=_seconds(tables["costs"]),
            contamination=tables["contamination"].to_dicts(),
            contaminated=tables["contamination_rows"].head(LISTED).to_dicts(),
            n_contaminated=tables["contamination_rows"].height,
            scored_by=dict(versions.rows()),
            distributions={item.name: item.distribution for item in facts.evals},
            synthesis=_yields(tables["synthesis"]),
        )
    )


def responses(template: Path, data: Mapping[str, Any], facts: Spec, pair: tuple[str, str], report: str) -> str:
    """The page of responses as HTML text: the browser alone. `template`: resources/responses.html.jinja. `pair`: the
    arms with which it opens. `report`: the name of the report."""
    frame = _frame(template, data, [], facts, pair)
    return _environment(template).get_template(template.name).render(**frame, beside=None, report=report)


def _environment(template: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment


def _frame(
    template: Path, data: Mapping[str, Any], scripts: Sequence[str], facts: Spec, pair: tuple[str, str]
) -> dict[str, Any]:
    """What both pages need: facts, style, scripts with their hashes, and the browser's data."""
    texts = [_asset(template, name) for name in scripts] + ([_asset(template, *SCRIPTS)] if data["evals"] else [])
    return {
        "facts": facts,
        "style": _asset(template, *STYLES),
        "scripts": texts,
        "script_hashes": [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts],
        "data": embedded(data),
        "browsable": bool(data["evals"]),
        "first_pair": pair,
    }


def in_order(rows: list[Row], facts: Spec) -> list[Row]:
    """The rows of a table with the columns arm and eval, in the order of the config: by arm, control and eval. Rows
    that are equal in these keep the table's order."""
    arms = {arm.name: place for place, arm in enumerate(facts.arms)}
    evals = {item.name: place for place, item in enumerate(facts.evals)}
    controls = {(arm.name, name): place for arm in facts.arms for place, name in enumerate(arm.control)}

    def place(row: Row) -> tuple[int, int, int]:
        control = controls.get((row["arm"], row.get("control", "")), len(arms))
        return arms.get(row["arm"], len(arms)), control, evals.get(row["eval"], len(evals))

    return sorted(rows, key=place)


def _asset(template: Path, *names: str) -> markupsafe.Markup:
    """The files beside the template, joined."""
    return markupsafe.Markup("".join((template.parent / name).read_text(encoding="utf-8") for name in names))


def _introduced(answers: Sequence[Row], facts: Spec) -> list[list[tuple[str, str]]]:
    """For each answer, (name, description) of the arms that no earlier answer names."""
    descriptions = {arm.name: arm.what for arm in facts.arms}
    first_named = []
    for row in answers:
        names = [name for name in (row["control"], row["arm"]) if name in descriptions]
        first_named.append([(name, descriptions.pop(name)) for name in names])
    return first_named


def _shares(row: Row, counts: Mapping[tuple[str, str, str], Row]) -> list[tuple[str, str, str, bool]]:
    """(label, the arm's share, the control's share, whether they are far apart) for what was cut, unparsed, failed or
    unverified."""
    arm, control = (counts.get((row[side], row["eval"], row["metric"])) for side in ("arm", "control"))
    if arm is None or control is None:
        return []
    both = zip(matrix.shares(arm, control), matrix.shares(control, arm), strict=True)
    return [(share.label, share.text, beside.text, share.apart) for share, beside in both]


def _levels(row: Row, counts: Mapping[tuple[str, str, str], Row]) -> list[tuple[str, float]]:
    """(arm, its mean) of the arm and the control of an answer, as far as they are known."""
    means = [
        (row[side], counts.get((row[side], row["eval"], row["metric"]), {}).get("mean")) for side in ("arm", "control")
    ]
    return [(arm, mean) for arm, mean in means if mean is not None]


def embedded(value: Any) -> markupsafe.Markup:
    """JSON for a <script> element. It holds no "<", ">" or "&", so neither "</script>" nor a comment can end it
    early."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markupsafe.Markup(text)


def _by_arm(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows grouped by arm, in the order of the table."""
    arms: dict[str, list[Row]] = {}
    for row in rows:
        arms.setdefault(row["arm"], []).append(row)
    return arms


def _by_pair(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Comparisons grouped by arm and control, in the order of the table."""
    pairs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        pairs.setdefault((row["arm"], row["control"]), []).append(row)
    return pairs


def _side(row: Row) -> str:
    """The side of 0 on which a comparison's interval lies: "good", "bad" or "open"."""
    return questions.side(row["ci_low"], row["ci_high"], row["direction"])


def first_pair(rows: Sequence[Row], facts: Spec) -> tuple[str, str]:
    """The arm and control with which the browser opens: those of the first of the questions and comparisons."""
    return (rows[0]["arm"], rows[0]["control"]) if rows else (facts.arms[-1].name, facts.arms[0].name)


def _adapted(contamination: pl.DataFrame, facts: Spec) -> set[tuple[str, str]]:
    """(arm, eval) where the arm, or an arm that it is made from, may see rows of the eval, and has been trained on
    some."""
    shared = contamination.filter(pl.col("n_shared") + pl.col("n_near") > 0)
    seen = set(shared.select("arm", "eval").rows())
    return {
        (arm.name, item.name)
        for arm in facts.arms
        for item in facts.evals
        if any((other, item.name) in seen for other in arm.transductive)
    }


def _seconds(costs: pl.DataFrame) -> dict[tuple[Any, ...], float | None]:
    """(arm, stage, seed, eval) -> the seconds that the job took."""
    return {row[:4]: row[4] for row in costs.select("arm", "stage", "seed", "eval", "seconds").rows()}


def _costs(table: pl.DataFrame) -> list[Row]:
    """Costs by arm, stage and eval, summed over seeds; peak memory is the maximum over seeds."""
    return (
        table.group_by("arm", "stage", "eval", maintain_order=True)
        .agg(
            pl.len().alias("runs"),
            pl.col("seconds", "cpu_seconds", "gpu_seconds", "attempts", "tokens").sum(),
            pl.col("peak_memory_bytes", "peak_gpu_memory_bytes").max(),
            pl.col("device", "source").unique(maintain_order=True).str.join(", "),
        )
        .to_dicts()
    )


def _yields(table: pl.DataFrame) -> list[Row]:
    """A row for each synthesised dataset: attempts, rows kept, and rejections by reason."""
    yields = []
    for (name,), rows in table.partition_by("dataset", as_dict=True).items():
        rejected = rows.filter(~pl.col("kept")).group_by("reason").len().sort("len", "reason", descending=[True, False])
        yields.append(
            {"dataset": name, "attempts": len(rows), "kept": int(rows["kept"].sum()), "reasons": rejected.rows()}
        )
    return yields
