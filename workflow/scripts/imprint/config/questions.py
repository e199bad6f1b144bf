"""What the experiment is made to find out: the part `questions` of a config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from imprint.runtime.plugins import Strict


class Check(Strict):
    """What shows that a treatment was delivered. With `eval`: the arm is better than the control there, by its own 95%
    interval. With `curve`: a training curve of the arm rises (the last third of its steps lies above the first), or its
    mean is `above` or `below` a number. A check makes no claim, and costs the questions nothing."""

    arm: str | None = Field(None, description="null takes the question's arm")
    control: str | None = Field(None, description="null takes the question's control")
    eval: str | None = Field(None, description="name of an eval that both take")
    metric: str | None = Field(None, description="one of the eval's metrics that says what is better; null: primary")
    curve: str | None = Field(
        None, description="a quantity of the table `curves`, such as `reward` or `zero_variance_share`"
    )
    above: float | None = Field(None, description="the curve's mean over steps and seeds must be above this")
    below: float | None = Field(None, description="the curve's mean over steps and seeds must be below this")

    @model_validator(mode="after")
    def _one_thing(self) -> Check:
        if (self.eval is None) == (self.curve is None):
            raise ValueError("write exactly one of `eval: NAME` and `curve: QUANTITY`")
        if self.curve is None and (self.above, self.below) != (None, None):
            raise ValueError("above and below are about a training curve; write `curve: QUANTITY`, or leave them out")
        if self.curve is not None and (self.control, self.metric) != (None, None):
            raise ValueError("a training curve has no control and no metric; leave them out")
        return self


class Question(Strict):
    """What the experiment is made to find out. Write questions before you look at results."""

    asks: str = Field(min_length=10, max_length=300, description="the question in words, as it opens the report")
    arm: str = Field(description="name of an arm")
    control: str = Field(description="name of the arm that it is compared with")
    eval: str | list[str] = Field(
        description="name of an eval that both take, or a list; each is a question of its own"
    )
    metric: str | None = Field(None, description="one of the eval's metrics that says what is better; null: primary")
    kind: Literal["gain", "retention", "equivalence"] = Field(
        "gain", description="is the arm better; does it lose less than `margin`; do they differ by less than `margin`"
    )
    margin: float | None = Field(
        None, gt=0, description="in units of the metric; the smallest difference that would matter to you"
    )
    over: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9_]*$",
        description="a stratum of the eval's rows, such as `instruction`. The claim is then about other values of it "
        "(other types of instructions), so its values are the clusters; null claims something about other examples",
    )
    check: Check | None = Field(
        None, description="says whether the treatment was delivered; if it was not, the question is not tested"
    )

    @property
    def evals(self) -> list[str]:
        """The names of its evals."""
        return [self.eval] if isinstance(self.eval, str) else self.eval

    @model_validator(mode="after")
    def _has_a_margin(self) -> Question:
        if self.kind == "gain" and self.margin is not None:
            raise ValueError("margin: a gain has none; leave it out, or write `kind: retention` or `kind: equivalence`")
        if self.kind != "gain" and self.margin is None:
            raise ValueError(f"margin: {self.kind} needs one; write the smallest difference that would matter to you")
        return self

    @field_validator("eval")
    @classmethod
    def _distinct(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and (not value or len(set(value)) != len(value)):
            raise ValueError(f"found {value}; write at least one eval, and each once")
        return value
