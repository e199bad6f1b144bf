"""The report of a comparison of two logs: the page of every experiment, without what only an experiment has."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import polars as pl

from imprint.charts import Eval
from imprint.charts._job import drawn
from imprint.logs.sides import Side
from imprint.logs.verdict import Verdict, table_of
from imprint.report import browser, facts, page
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import atomic, file_sha256

TEMPLATE = plugins.PACKAGE.parents[2] / "resources/report.html.jinja"
MARK = "<!-- made by imprint.compare, which may write it again -->\n"
PACKAGES = ("numpy", "polars", "scipy")


def write(path: Path, verdict: Verdict, control: Side, arm: Side, force: bool = False) -> None:
    """Write the report as HTML. Raises ImprintError if `path` is a file that is no such report, unless `force` says
    that the file may be lost."""
    if path.is_dir():
        raise ImprintError(f"{path}: is a folder; write the name of a file, --report {path}/compare.html")
    if path.exists() and not force and not _ours(path):
        raise ImprintError(f"{path}: is no report of imprint.compare; write another --report, or --force to replace it")
    missing = {name: table_of(name, pl.DataFrame()) for name in page.NEEDED if name not in verdict.tables}
    evals = dict.fromkeys(verdict.tables["answers"]["eval"].to_list(), Eval())
    forest = drawn("answers", verdict.tables, [control.name, arm.name], evals, TEMPLATE.parent / "captions/answers.md")
    spec = _facts(verdict, control, arm)
    provenance = facts.Provenance(versions={name: version(name) for name in PACKAGES})
    tables = verdict.tables | missing
    text = page.render(
        TEMPLATE, tables, {"answers": forest}, spec, provenance, browser.collect(tables, spec, browser.BUDGET)
    )
    with atomic(path) as temporary:
        temporary.write_text(text + MARK, encoding="utf-8")


def _ours(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(MARK)))
        return file.read() == MARK.encode()


def _facts(verdict: Verdict, control: Side, arm: Side) -> facts.Spec:
    with_options = set(verdict.tables["generations"].filter(pl.col("logprob_sum").is_not_null())["eval"].unique())
    names = verdict.tables["answers"]["eval"].to_list()
    return facts.Spec(
        title=f"Does {arm.name} beat {control.name}?",
        about=scope(control, arm),
        arms=[
            facts.Arm(name=control.name, what=f"{_runs(control)} of another harness"),
            facts.Arm(name=arm.name, what=f"{_runs(arm)} of another harness", control=[control.name]),
        ],
        evals=[
            facts.Eval(
                name=name,
                dataset="the questions of the logs",
                score="values of the log",
                scorer=None,
                asks="loglikelihood" if name in with_options else "generate",
                retention=False,
                distribution="",
                private=False,
            )
            for name in names
        ],
        models=[],
        datasets=[
            facts.Source(name=path.name, source=f"{side.name}: {path}", sha256=file_sha256(path))
            for side in (control, arm)
            for path in side.files
        ],
        seeds=sorted(verdict.tables["scores"]["seed"].unique().to_list()),
        limit=None,
        folder=f"the logs of {control.name} and {arm.name}",
    )


def scope(control: Side, arm: Side) -> str:
    """What the answers are about, in a sentence."""
    if control.runs > 1 or arm.runs > 1:
        return "The answers are about the way in which each side was trained: they hold other examples and other runs."
    return (
        "Each side is one run: the answers are about these two models, on other examples, and not about training runs."
    )


def _runs(side: Side) -> str:
    return f"{side.runs} run{'s' if side.runs > 1 else ''}"
