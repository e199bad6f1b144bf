"""The report: one HTML file that needs no network and no other file.

Jinja escapes all text from configs, models and data. The browser's text is JSON, which the page shows by `textContent`
only. A content security policy allows the page's own script and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import polars as pl

from imprint.report import SCRIPTS, STYLES, browser, verdicts
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
    "prompts",
)
LISTED = 50  # rows of evals that are also in a training set
MINUS = "\N{MINUS SIGN}"


def render(
    template: Path,
    tables: Mapping[str, pl.DataFrame],
    charts: Mapping[str, tuple[str | None, str]],
    facts: Spec,
    provenance: Provenance,
) -> str:
    """The report as HTML text.

    `template`: resources/report.html.jinja, with the files of ASSETS beside it. `tables`: polars frames of the tables
    in NEEDED, and of `datasets` where the browser is to show questions and references. `charts`: title -> (SVG text,
    or None if there is nothing to draw; caption as HTML). Raises ImprintError if a table is missing.
    """
    missing = [name for name in NEEDED if name not in tables]
    if missing:
        raise ImprintError(f"the report needs the table(s) {', '.join(missing)}; give them as polars frames")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "signed": signed, "duration": duration, "sentence": verdicts.explanation}
    script = _joined(template.parent, SCRIPTS)
    comparisons, answers = tables["comparisons"].to_dicts(), tables["answers"].to_dicts()
    retention = {e.name for e in facts.evals if e.retention}
    versions = tables["scores"].group_by("eval").agg(pl.col("eval_version").unique().sort().str.join("; "))
    data = browser.collect(tables, facts)
    return environment.get_template(template.name).render(
        facts=facts,
        provenance=provenance,
        script=markupsafe.Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=markupsafe.Markup(_joined(template.parent, STYLES)),
        data=embedded(data),
        browsable=bool(data["evals"]),
        charts=[(t, markupsafe.Markup(s) if s else None, markupsafe.Markup(c)) for t, (s, c) in charts.items()],
        answers=answers,
        outcome=questions.outcome,
        tally=Counter(row["verdict"] for row in answers),
        primary=_by_pair([row for row in comparisons if row["primary"]]),
        secondary=_by_pair([row for row in comparisons if not row["primary"]]),
        lost=[row for row in comparisons if _on_the_worse_side(row)],
        guarded=_by_pair([row for row in comparisons if row["eval"] in retention and row["primary"]]),
        counts={(row["arm"], row["eval"], row["metric"]): row for row in tables["summary"].to_dicts()},
        first_pair=_first_pair(answers, comparisons, facts),
        transductive={arm.name for arm in facts.arms if arm.transductive},
        summary={
            name: rows.to_dicts()
            for (name,), rows in tables["summary"].partition_by("arm", as_dict=True, maintain_order=True).items()
        },
        costs=_costs(tables["costs"]),
        contamination=tables["contamination"].to_dicts(),
        contaminated=tables["contamination_rows"].head(LISTED).to_dicts(),
        n_contaminated=tables["contamination_rows"].height,
        scored_by=dict(versions.rows()),
        distributions={item.name: item.distribution for item in facts.evals},
        synthesis=_yields(tables["synthesis"]),
    )


def embedded(value: Any) -> markupsafe.Markup:
    """JSON for a <script> element. It holds no "<", ">" or "&", so neither "</script>" nor a comment can end it
    early."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markupsafe.Markup(text)


def _joined(folder: Path, names: Sequence[str]) -> str:
    return "".join((folder / name).read_text(encoding="utf-8") for name in names)


def number(value: float | None) -> str:
    """A number with three decimals, or with one from 100 on, and with a true minus sign; a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    text = f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3f}"
    return text.replace("-", MINUS)


def signed(value: float | None) -> str:
    """Like `number`, with a plus sign for positive values."""
    return "+" + number(value) if value is not None and value > 0 else number(value)


def duration(seconds: float | None) -> str:
    """Seconds as text: "5.2 s", "3 min 20 s" or "2 h 5 min"; a dash for None."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left_over = divmod(round(seconds), 60)
    return f"{minutes} min {left_over} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _by_pair(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Comparisons grouped by arm and control, in the order of the table."""
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        pairs.setdefault((row["arm"], row["control"]), []).append(row)
    return pairs


def _on_the_worse_side(row: dict[str, Any]) -> bool:
    """Whether a comparison's interval lies on the worse side of 0."""
    end = row["ci_high"] if row["direction"] > 0 else row["ci_low"]
    return end is not None and end * row["direction"] < 0


def _first_pair(answers: list[dict[str, Any]], comparisons: list[dict[str, Any]], facts: Spec) -> tuple[str, str]:
    """The arm and control with which the browser opens: those of the first question, else of the first comparison."""
    rows = [*answers, *comparisons]
    return (rows[0]["arm"], rows[0]["control"]) if rows else (facts.arms[-1].name, facts.arms[0].name)


def _costs(table: pl.DataFrame) -> list[dict[str, Any]]:
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


def _yields(table: pl.DataFrame) -> list[dict[str, Any]]:
    """A row for each synthesised dataset: attempts, rows kept, and rejections by reason."""
    yields = []
    for (name,), rows in table.partition_by("dataset", as_dict=True).items():
        rejected = rows.filter(~pl.col("kept")).group_by("reason").len().sort("len", "reason", descending=[True, False])
        yields.append(
            {"dataset": name, "attempts": len(rows), "kept": int(rows["kept"].sum()), "reasons": rejected.rows()}
        )
    return yields
