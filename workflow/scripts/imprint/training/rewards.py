"""Rewards: score plug-ins as reward functions for TRL. So the fit optimizes the scores that an eval measures.

`reward: [math, {format: plan}]` has two terms. The reward of a completion is the mean of its terms: each is 0 or 1, so
the reward is 0, 0.5 or 1 (arXiv 2505.14157). `ifeval` alone means its primary metric, whether all instructions are
followed. `ifeval.instruction_strict` names another metric, which has one verdict for each instruction. The value of a
term is the mean of its verdicts, so here it is the share of instructions followed.

Terms are judged as in an eval (`scoring/verification.py`), with limited time, so no completion can hang a trainer. A
completion whose check fails or takes too long gets 0, and is counted in `Reward.failed`.
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
        if isinstance(raw, dict) and set(raw) == {"score", "metric", "settings"}:  # a job's params hold this form
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
        if module.METRICS[metric or module.PRIMARY] < 0:
            rest = [other for other, direction in module.METRICS.items() if direction >= 0]
            raise ValueError(
                f"lower is better in '{name}.{metric or module.PRIMARY}', and a reward is the better the higher it is; "
                + (f"write {name}.METRIC with one of: {', '.join(rest)}" if rest else "write another score")
            )
        if not isinstance(settings, dict):
            settings = {next(iter(module.Settings.model_fields), "value"): settings}
        return {"score": name, "metric": metric or module.PRIMARY, "settings": module.Settings.model_validate(settings)}

    @property
    def name(self) -> str:
        """The term's name in curves and rollouts: the score, and its metric unless that is the primary one."""
        module = plugins.load("scores", self.score)
        return self.score if self.metric == module.PRIMARY else f"{self.score}.{self.metric}"


class Reward:
    """One term as a reward function of TRL. It takes completions, as texts or dialogues, and the columns of their rows.
    It returns one float for each completion, or None if the verifier cannot read the row's reference. The columns
    `messages`, `reference` and `fields` are the dataset's; the last two hold JSON text."""

    def __init__(self, term: Term, contexts: list[Plug]) -> None:
        self.term, self.contexts = term, contexts
        self.__name__ = term.name
        self.failed = 0
        """How many completions could not be judged: the completion was too long, or its check failed or took too
        long."""

    def read(self, text: str) -> str:
        """The part of a completion that the term judges."""
        return answers.rewarded(plugins.load("scores", self.term.score).READS, self.contexts, text)

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        """The value of each completion, in order."""
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
        """The term's value for one completion of a row: 0 if it cannot be judged, None if the row's reference cannot be
        read."""
        try:
            return self.verified(row, text)
        except bounded.Failure:
            self.failed += 1
            return 0.0  # None would stop the fit, and one completion must not do that

    def verified(self, row: dict[str, Any], text: str) -> float | None:
        """The term's value for one text, or None if the score gives it none. Raises `bounded.Failure` if the text is
        too long, or if its check comes to no verdict."""
        if len(text) > LONGEST:
            raise bounded.Failure(f"the text has {len(text):,} characters, more than {LONGEST:,}")
        term = self.term
        verdicts = verification.verdicts(term.score, term.settings, row, self.read(text))
        values = [verdict.value for verdict in verdicts if verdict.metric == term.metric]
        numbers = [value for value in values if value is not None]
        return sum(numbers) / len(numbers) if numbers and len(numbers) == len(values) else None


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
