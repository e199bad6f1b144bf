"""Rewards: score plug-ins as TRL calls a reward, so that what is trained for is what is measured.

`reward: [math, {format: plan}]` are two terms, and the reward of a completion is their mean (each is 0 or 1, so R is 0,
0.5 or 1, as in arXiv 2505.14157). `ifeval` is its primary metric, all instructions followed;
`ifeval.instruction_strict` names another, here the share of instructions followed: the mean of its verdicts is taken.

Every term is judged as in an evaluation (`scoring/verification.py`), so no completion can hang a trainer; one whose
check comes to no verdict is worth 0, and is counted.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field, SerializeAsAny, model_validator

from imprint.policies import answers
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug, Strict
from imprint.scores import LONGEST
from imprint.scoring import bounded, verification


class Term(Strict):
    """A score and one of its metrics, written NAME, NAME.METRIC, or either with settings."""

    score: str = Field(description="module in imprint/scores")
    metric: str = Field(description="metric of the score; its primary one if none is named")
    settings: SerializeAsAny[Strict] = Field(description="settings of the score")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and set(raw) == {"score", "metric", "settings"}:  # read back from a job's params
            raw = {f"{raw['score']}.{raw['metric']}": raw["settings"]}
        if isinstance(raw, str):
            raw = {raw: {}}
        if not isinstance(raw, dict) or len(raw) != 1:
            raise ValueError(f"found {raw!r:.80}; write a score's name, or one name with its settings")
        ((key, settings),) = raw.items()
        name, _, metric = str(key).partition(".")
        try:
            module = plugins.load("scores", name)
        except ImprintError as error:
            raise ValueError(str(error)) from None
        if module.ASKS != "generate":
            raise ValueError(f"'{name}' scores options, not text; write a score of responses")
        if module.QUESTIONS:
            raise ValueError(f"'{name}' asks a judge, which no reward can wait for; write a score by rules")
        if module.ENVIRONMENT:
            raise ValueError(f"'{name}' reads how a dialogue ends, and a completion is none; write another score")
        if (metric or module.PRIMARY) not in module.METRICS:
            raise ValueError(f"'{name}' has no metric '{metric}'; write one of: {', '.join(module.METRICS)}")
        if not isinstance(settings, dict):
            settings = {next(iter(module.Settings.model_fields), "value"): settings}
        return {"score": name, "metric": metric or module.PRIMARY, "settings": module.Settings.model_validate(settings)}

    @property
    def name(self) -> str:
        """As it stands in curves and rollouts."""
        module = plugins.load("scores", self.score)
        return self.score if self.metric == module.PRIMARY else f"{self.score}.{self.metric}"


class Reward:
    """One term as a reward function: texts (or dialogues) of completions and the columns of their rows in, a list of
    floats out. `messages`, `reference` and `fields` are the columns of a dataset, the last two as JSON text. None
    stands for a row that cannot be scored (a reference that the verifier cannot read)."""

    def __init__(self, term: Term, contexts: list[Plug]) -> None:
        self.term, self.contexts = term, contexts
        self.__name__ = term.name
        self.failed = 0
        """Completions that could not be judged: too long, or their check failed or took too long."""

    def read(self, text: str) -> str:
        """The part of a completion that the term judges: all of it, or the answer in it."""
        whole = plugins.load("scores", self.term.score).READS == "response"
        return text if whole else answers.rewarded(self.contexts, text)

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        """One value per completion."""
        values = []
        for i, completion in enumerate(completions):
            text = completion if isinstance(completion, str) else completion[-1]["content"]
            row: dict[str, Any] = {
                "example_id": (columns.get("example_id") or [""] * len(completions))[i],
                "messages": columns["messages"][i] if "messages" in columns else [],
                "state": None,
                **{key: _json(columns[key][i]) for key in ("reference", "fields") if key in columns},
            }
            values.append(self.value(row, text))
        return values

    def value(self, row: dict[str, Any], text: str) -> float | None:
        """The term's value for one completion of a row."""
        if len(text) > LONGEST:
            self.failed += 1
            return 0.0
        term = self.term
        try:
            verdicts = verification.verdicts(term.score, term.settings, row, self.read(text))
        except bounded.Failure:
            self.failed += 1
            return 0.0  # never None, which stops the fit: one completion could end it
        values = [verdict.value for verdict in verdicts if verdict.metric == term.metric]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
