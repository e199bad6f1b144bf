"""The report: one HTML file that needs no network and no other file.

All text from configs, models and data passes through Jinja's escaping or, in the browser section, is JSON that the page
shows by `textContent` only; a content security policy allows the page's own script and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jinja2
import markupsafe
import polars as pl
from pydantic import Field, ValidationError

from imprint import browser
from imprint.errors import ImprintError
from imprint.plugins import Strict

NEEDED = ("summary", "comparisons", "costs", "contamination", "synthesis", "scores", "generations", "prompts")
MINUS = "\N{MINUS SIGN}"


class Source(Strict):
    """A model or dataset that went into the experiment."""

    name: str
    source: str = Field(description="where it comes from: package and version, repository and commit, generator")
    licence: str | None = None
    sha256: str | None = None
    rows: int | None = None


class Arm(Strict):
    """An arm, in words."""

    name: str
    what: str = Field(description="its parent, fit and apply in a few words")
    control: list[str] = Field(default_factory=list)
    transductive: bool = Field(False, description="it adapted on the eval's own prompts; stamped on its rows")


class Eval(Strict):
    """An eval, in words."""

    name: str
    dataset: str
    score: str
    asks: Literal["generate", "loglikelihood"]
    retention: bool = Field(False, description="it measures what an arm may lose, not what it should gain")
    distribution: str = Field("", description="whether some arm is trained on its kinds of rows, in words")
    private: bool = Field(False, description="its examples may not be spread, so none is shown")


class Settings(Strict):
    """The facts of the experiment that are not in the tables."""

    title: str
    arms: list[Arm]
    evals: list[Eval]
    models: list[Source]
    datasets: list[Source]
    seeds: list[int]
    limit: int | None
    versions: dict[str, str]
    commit: str | None = None
    folder: str = Field("results", description="where the tables lie, as shown to the reader")


def render(
    template: Path,
    tables: Mapping[str, pl.DataFrame],
    charts: Mapping[str, tuple[str | None, str]],
    settings: Mapping[str, Any],
) -> str:
    """The report as HTML text.

    `template`: resources/report.html.jinja, with report.css and report.js beside it. `tables`: polars frames of the
    tables in NEEDED. `charts`: title -> (SVG text, or None when there was nothing to draw; caption as HTML).
    `settings`: the fields of Settings. Raises ImprintError when a table or a setting is missing or wrong.
    """
    missing = [name for name in NEEDED if name not in tables]
    if missing:
        raise ImprintError(f"the report needs the table(s) {', '.join(missing)}; give them as polars frames")
    try:
        facts = Settings.model_validate(dict(settings))
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ImprintError(f"the report's settings are wrong: {found}") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "signed": signed, "p_value": p_value, "duration": duration}
    script = (template.parent / "report.js").read_text(encoding="utf-8")
    comparisons = tables["comparisons"].to_dicts()
    retention = {e.name for e in facts.evals if e.retention}
    versions = tables["scores"].group_by("eval").agg(pl.col("eval_version").unique().sort().str.join("; "))
    data = browser.collect(
        tables, [arm.name for arm in facts.arms], {e.name: e.asks for e in facts.evals if not e.private}
    )
    return environment.get_template(template.name).render(
        facts=facts,
        script=markupsafe.Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=markupsafe.Markup((template.parent / "report.css").read_text(encoding="utf-8")),
        data=embedded(data),
        browsable=bool(data["evals"]),
        per_pair=browser.PER_PAIR,
        charts=[(t, markupsafe.Markup(s) if s else None, markupsafe.Markup(c)) for t, (s, c) in charts.items()],
        primary=_by_pair([row for row in comparisons if row["family"] == "primary"]),
        secondary=_by_pair([row for row in comparisons if row["family"] != "primary"]),
        lost=[row for row in comparisons if row["verdict"] == "worse"],
        guarded=[row for row in comparisons if row["eval"] in retention and row["family"] == "primary"],
        tally={v: sum(r["family"] == "primary" and r["verdict"] == v for r in comparisons) for v in VERDICTS},
        first_pair=_first_pair(comparisons, facts),
        transductive={arm.name for arm in facts.arms if arm.transductive},
        summary={
            name: rows.to_dicts()
            for (name,), rows in tables["summary"].partition_by("arm", as_dict=True, maintain_order=True).items()
        },
        costs=_costs(tables["costs"]),
        contamination=tables["contamination"].to_dicts(),
        scored_by=dict(versions.rows()),
        told={item.name: item.distribution for item in facts.evals},
        synthesis=_yields(tables["synthesis"]),
    )


VERDICTS = {"better": "better", "worse": "worse", "tie": "tied", "no data": "without data"}


def embedded(value: Any) -> markupsafe.Markup:
    """JSON that may stand inside a <script> element: no "<", ">" or "&" is left, so neither "</script>" nor a comment
    can end it early."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markupsafe.Markup(text)


def number(value: float | None) -> str:
    """Three decimals (one from 100 up), a true minus sign, a dash for nothing."""
    if value is None:
        return "\N{EN DASH}"
    text = f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3f}"
    return text.replace("-", MINUS)


def signed(value: float | None) -> str:
    """As `number`, with a plus sign too."""
    return "+" + number(value) if value is not None and value > 0 else number(value)


def p_value(value: float | None) -> str:
    """A p-value; below 0.001 only that."""
    return "<0.001" if value is not None and value < 0.001 else number(value)


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _by_pair(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Comparisons grouped by arm and control, in the order of the table."""
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        pairs.setdefault((row["arm"], row["control"]), []).append(row)
    return pairs


def _first_pair(rows: list[dict[str, Any]], facts: Settings) -> tuple[str, str]:
    """The arm and control that the browser opens with: one with a gain if there is one."""
    ranked = sorted(rows, key=lambda row: (row["verdict"] != "better", row["family"] != "primary"))
    return (ranked[0]["arm"], ranked[0]["control"]) if ranked else (facts.arms[-1].name, facts.arms[0].name)


def _costs(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Costs by arm, stage and eval, added up over seeds (peak memory: the highest)."""
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
    """Of each synthesised dataset: attempts, rows kept, and rejections by reason."""
    found = []
    for (name,), rows in table.partition_by("dataset", as_dict=True).items():
        rejected = rows.filter(~pl.col("kept")).group_by("reason").len().sort("len", "reason", descending=[True, False])
        found.append(
            {"dataset": name, "attempts": len(rows), "kept": int(rows["kept"].sum()), "reasons": rejected.rows()}
        )
    return found
