"""What is measured: the part `evals` of a config."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from imprint.config.references import EnvironmentRef, ScoreRef
from imprint.runtime import plugins
from imprint.runtime.plugins import Strict

ASKING = ("dataset", "environment", "max_new_tokens", "samples", "temperature", "top_p", "arms")
"""The keys that say which responses there are. Evals that share responses share these keys."""


class Eval(Strict):
    """A dataset, how a response is decoded, and how it is scored. `score: [ifeval, brevity]` scores the same responses
    twice: each further score makes an eval of its own, NAME_brevity, which is compared and asked about like any other.
    An eval without `score` only samples: its responses are read by fits, syntheses or contexts, or scored by other
    evals (`responses`). It is never compared, so its rows may be trained on."""

    dataset: str = Field(description="name of a dataset")
    score: ScoreRef | None = Field(
        None, description="how a response is scored (module in imprint/scores), or a list of scores; null only samples"
    )
    responses: str | None = Field(
        None,
        description="another eval, whose responses are scored here too: `{responses: EVAL, score: NAME}`, with "
        "`judge`, `describe` and `retention` if needed. All other keys are those of that eval",
    )
    arms: list[str] | None = Field(
        None, description="the arms that take the eval; null is all that do not name other evals in their `evals`"
    )
    describe: list[ScoreRef] = Field(
        [], description="further scores of the same responses; they describe behaviours, and no verdict is made of them"
    )
    environment: EnvironmentRef | None = Field(
        None,
        description="speaks for the other side, over several turns (module in imprint/environments); null asks each "
        "example once",
    )
    judge: str | None = Field(
        None, description="arm that answers the questions of judged scores; with null, their metrics are null too"
    )
    max_new_tokens: int = Field(
        160,
        ge=1,
        le=131072,
        description="most tokens of an answer; what a context has the model write before it does not count. The report "
        "counts the responses that are cut",
    )
    samples: int = Field(1, ge=1, le=1024, description="responses per example; more than 1 needs a temperature")
    temperature: float = Field(0.0, ge=0, le=10, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling")
    retention: bool = Field(False, description="the eval measures what an arm may lose, not what it should gain")

    @property
    def scores(self) -> list[ScoreRef]:
        """The scores of its responses, that of the verdicts first; empty where it only samples."""
        return [self.score, *self.describe] if self.score else []

    @property
    def asks(self) -> Literal["generate", "loglikelihood"]:
        """What its responses are: written ones, or the log-likelihoods of given options."""
        compares = self.score is not None and plugins.load("scores", self.score.name).ASKS == "loglikelihood"
        return "loglikelihood" if compares else "generate"

    @property
    def metrics(self) -> dict[str, int]:
        """Metric of its score -> direction (`scores.Score.METRICS`); empty where it only samples."""
        metrics: dict[str, int] = plugins.load("scores", self.score.name).METRICS if self.score else {}
        return metrics

    @property
    def primary(self) -> str:
        """The metric that comparisons are about; "" where it only samples."""
        return str(plugins.load("scores", self.score.name).PRIMARY) if self.score else ""

    @model_validator(mode="after")
    def _only_samples(self) -> Eval:
        if self.score is None:
            scoring = {"describe": self.describe, "judge": self.judge, "responses": self.responses}
            if written := [key for key, value in (scoring | {"retention": self.retention}).items() if value]:
                raise ValueError(f"{written[0]}: an eval without `score` only samples; write a score, or leave it out")
        return self

    @model_validator(mode="after")
    def _describes(self) -> Eval:
        if self.score is None:
            return self
        scores, metrics = {self.score.name}, set(plugins.load("scores", self.score.name).METRICS)
        for ref in self.describe:
            module = plugins.load("scores", ref.name)
            if module.ASKS != "generate" or self.asks != "generate":
                raise ValueError(f"describe: '{ref.name}' needs written responses; only those can be described")
            if any(module.METRICS.values()):
                raise ValueError(f"describe: '{ref.name}' says what is better; add it to `score`")
            if ref.name in scores:
                raise ValueError(f"describe: '{ref.name}' is written twice; write each score once")
            if shared := metrics & set(module.METRICS):
                raise ValueError(f"describe: '{ref.name}' has a metric that another score here has: {min(shared)}")
            scores.add(ref.name)
            metrics |= set(module.METRICS)
        if self.judge is None and plugins.load("scores", self.score.name).QUESTIONS:
            raise ValueError(f"judge: the score '{self.score.name}' asks one; write `judge: ARM`")
        if self.judge is not None and not self.questions():
            modules = {name: plugins.load("scores", name) for name in plugins.names("scores")}
            judged = [name for name, it in modules.items() if it.QUESTIONS and not any(it.METRICS.values())]
            raise ValueError(f"judge: no score of this eval asks one; add one to `describe`: {', '.join(judged)}")
        return self

    def questions(self) -> dict[str, dict[str, Any]]:
        """What the judged scores of this eval ask: score -> its questions, the most tokens of an answer, and the (arm,
        eval) whose responses stand beside those that are judged, or None."""
        modules = [(ref, plugins.load("scores", ref.name)) for ref in self.scores]
        return {
            ref.name: {
                "questions": module.QUESTIONS,
                "max_new_tokens": module.ANSWER_TOKENS,
                "against": next(iter(module.inputs(ref.settings).runs), None),
            }
            for ref, module in modules
            if module.QUESTIONS
        }

    @model_validator(mode="after")
    def _fits_its_environment(self) -> Eval:
        name = self.environment.name if self.environment else ""
        if name and self.score and self.asks != "generate":
            raise ValueError(
                f"environment: '{self.score.name}' compares options, and nothing is said to an environment; write a "
                "score of written responses"
            )
        for ref in self.scores:
            needed = plugins.load("scores", ref.name).ENVIRONMENT
            if needed not in ("", name):
                raise ValueError(
                    f"environment: '{ref.name}' reads how dialogues in another one end; write `environment: {needed}`"
                )
        return self

    @model_validator(mode="after")
    def _samples_differ(self) -> Eval:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples at temperature 0 are all the same; write `temperature: 1.0` or `samples: 1`")
        return self
