"""Scores: verdicts on responses. A score is also a reward and a filter of data, so it is pure and runs in bounded
time."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from imprint.runtime import plugins
from imprint.scoring import bounded

LONGEST = 200_000  # characters; a longer response has the reward 0, and follows no instruction


class Verdict(NamedTuple):
    """One metric of one response: `value` in the metric's unit, or None if it cannot be scored. `item` numbers the
    parts that are judged separately (the instructions of an IFEval prompt), `label` names the part. `unparsed`: the
    response holds no answer that can be read."""

    metric: str
    value: float | None
    item: int | None = None
    label: str | None = None
    unparsed: bool = False


class Option(NamedTuple):
    """A given continuation: its text, its log-likelihood (nats) under the model, and its length in tokens."""

    text: str
    logprob: float
    tokens: int


class Reads(BaseModel):
    """What a score reads of a row's reference: its keys, with their types and descriptions. Other keys may stand beside
    them. The base class itself reads nothing."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)


class Score(plugins.Contract):
    """What a score defines."""

    Reference: type[Reads] = Reads
    """What it reads of a row's reference. Rows that lack it are refused before the first answer is generated
    (`runtime/needs.py`), so `score` finds it in every row."""

    ASKS: str
    """"generate": `response` is text; "loglikelihood": it is a list of `Option`."""
    VERSION: str
    """Written beside every value. Raise it with a change that can give a response another value."""
    PRIMARY: str
    """The metric that comparisons are about."""
    METRICS: dict[str, int]
    """Metric -> direction: 1 if higher is better, -1 if lower is, 0 for a descriptive metric, which has no verdict."""
    ENVIRONMENT = ""
    """The environment whose state it reads in `row["state"]`; its evals must have that environment."""
    READS = "answer"
    """What it judges, and what a judge is shown for it: "answer", the answer that the arm's contexts find in the
    response; "program", the part in which a program may stand; or "response", all of it."""
    QUESTIONS: dict[str, str] = {}  # noqa: RUF012
    """Questions to a judge: name -> text with {task}, {response}, and, if `inputs` names a run, {other}, the response
    of this run to the same example. A placeholder behind "> " at the beginning of a line is filled in as a quotation:
    every line of the text begins with "> ". The answers are in `row["answers"]`."""
    ANSWER_TOKENS = 0
    """The most tokens of a judge's answer."""
    JAILED = False
    """Whether it runs in a jail, because it evaluates what it reads, or hands it to a library that does."""
    ISOLATES = False
    """Whether it starts a jail itself for what it reads."""
    SECONDS = bounded.LIMIT
    """The most CPU seconds of one call of `score`."""

    @staticmethod
    @abstractmethod
    def score(row: dict[str, Any], response: Any, settings: Any) -> list[Verdict]:
        """Verdicts on a response to a dataset row (`messages`, `reference`, `fields`, plain JSON). `row` also has
        `state`, the end of a dialogue in an environment, and for a score with QUESTIONS `answers`, question -> text of
        the judge's answer, None if the judge's engine failed or there was nothing to ask about."""

    @staticmethod
    def form(settings: Any) -> str | None:
        """The form of response that it wants, by the name that contexts have for the form; None for any form."""
        return None

    @staticmethod
    def required(row: dict[str, Any]) -> list[str]:
        """What each `item` of its verdicts on a row asks for, in words for readers of the report. Empty if the verdicts
        have no items, or if the items' labels say it. It sees `row["reference"]` alone."""
        return []

    @staticmethod
    def faults(row: dict[str, Any], item: int, response: str) -> list[tuple[int, int]]:
        """Where a response fails an `item` of its verdicts, for readers of the report: (start, end) in characters.
        Empty where it fails at no place. It sees `row["reference"]` alone."""
        return []

    @staticmethod
    def warm() -> None:
        """Import slow modules. It runs once in a worker, and its time does not count."""

    @staticmethod
    def ahead(row: dict[str, Any]) -> None:
        """Load what the verdicts on a row need. Its time does not count, and it does not see the response."""


CONTRACT = Score
