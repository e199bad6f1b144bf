"""Whether answers satisfy a policy, and a summary for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from imprint.report import verdicts
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.plugins import Strict
from imprint.statistics.questions import outcome

Outcome = Literal["pass", "fail", "undecided"]
SIGNS = {"pass": "✅", "fail": "❌", "undecided": "❔"}
KINDS = {"better": ("gain", "equivalence"), "kept": ("retention", "equivalence")}
"""Requirement -> the kinds of questions that can answer it."""
MET = {"better": ("better", "higher", "lower"), "kept": ("kept", "equivalent", "better", "higher", "lower")}
"""Requirement -> the verdicts that meet it, if the direction of the metric makes them good ones. "higher" and "lower"
are about these weights alone."""


class Policy(Strict):
    """What must hold, by the names of questions. A question about two logs has the name of its eval."""

    better: list[str] = Field([], description="questions whose answer must be better")
    kept: list[str] = Field([], description="questions whose answer must be kept, or equivalent")
    undecided: Outcome = Field("undecided", description="what an undecided answer counts as: pass, fail or undecided")
    margin: float | None = Field(
        None, gt=0, description="for two logs: how much worse the evals in `kept` may be, in units of the metric"
    )

    @model_validator(mode="after")
    def _names_each_once(self) -> Policy:
        names = [*self.better, *self.kept]
        if not names:
            raise ValueError("names no question; write questions under better or kept")
        if len(set(names)) < len(names):
            raise ValueError(f"found {', '.join(names)}; write each question once")
        return self


class Finding(NamedTuple):
    """What a policy says of one answer, a row of the table `answers`."""

    outcome: Outcome
    required: str
    row: Mapping[str, Any]


def findings(policy: Policy, answers: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """What the policy says of each answer that it names; a question with several evals has an answer for each. Raises
    ImprintError for a question that has no answer, or is of a kind that cannot be better or kept."""
    judged = []
    for required, names in (("better", policy.better), ("kept", policy.kept)):
        for name in names:
            rows = [row for row in answers if row["question"] == name]
            if not rows:
                known = ", ".join(dict.fromkeys(row["question"] for row in answers)) or "none"
                raise ImprintError(f"{required}: there is no question '{name}'; there are: {known}")
            for row in rows:
                if row["kind"] not in KINDS[required]:
                    raise ImprintError(
                        f"{required}: '{name}' is a question of {row['kind']}; write it under another key"
                    )
                judged.append(Finding(_outcome(policy, required, row), required, row))
    return judged


def _outcome(policy: Policy, required: str, row: Mapping[str, Any]) -> Outcome:
    if row["verdict"] == "undecided":
        return policy.undecided
    good = outcome(row["verdict"], row["direction"]) == "good"
    return "pass" if good and row["verdict"] in MET[required] else "fail"


def overall(judged: Sequence[Finding]) -> Outcome:
    """The worst of all outcomes."""
    outcomes = [finding.outcome for finding in judged]
    return "fail" if "fail" in outcomes else "undecided" if "undecided" in outcomes else "pass"


def markdown(judged: Sequence[Finding]) -> str:
    """The summary as Markdown. No text of a config or a log is read as markup."""
    rows = [" | ".join(("", *cells, "")).strip() for cells in _cells(judged)]
    return "\n".join([f"### Gate: {overall(judged)}", "", *rows, ""])


def _cells(judged: Sequence[Finding]) -> Iterator[Sequence[str]]:
    yield "", "question", "eval", "must be", "is", "why"
    yield ("---",) * 6
    for finding in judged:
        row = finding.row
        texts = (row["asks"], row["eval"], finding.required, row["verdict"], verdicts.explanation(row))
        yield SIGNS[finding.outcome], *map(plain, texts)


def plain(text: str) -> str:
    """The text as one line in which Markdown and HTML see no markup: every character that could be markup becomes an
    entity."""
    flat = " ".join(shown(text).split())
    return re.sub(r"[^\w ,;?+/=%.-]|_", lambda character: f"&#{ord(character[0])};", flat)
