"""The model of a config, the YAML file that describes an experiment: models, datasets, evals, arms, questions.

`loading.load` reads a config. The manual `config/README.md` is generated from the descriptions in these modules and in
the plug-ins (`python -m imprint.manual`).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from imprint.config import references
from imprint.config.arms import Arm
from imprint.config.evals import Eval
from imprint.config.paths import Results
from imprint.config.questions import Question
from imprint.config.references import AnalysisRef, Name
from imprint.config.sources import Dataset, Model, runs_weights
from imprint.runtime.plugins import Strict


class Engine(Strict):
    """What runs the models."""

    name: str = Field("transformers", description="module in imprint/engines")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto",
        description="number format of the weights in generation and where coefficients are learned, and of autocast in "
        "other fits; auto is bfloat16 where the processor computes in it, else float32",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto is cuda where a job was given a GPU, else cpu; it never enters an arm's identity"
    )
    batch_size: int = Field(32, ge=1, le=4096, description="sequences decoded together; one batch is one shard")

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        return runs_weights(value)


class Config(Strict):
    """One experiment."""

    title: str = Field("Imprint report", min_length=1, max_length=120, description="heading of the report")
    about: str = Field(
        "", max_length=2000, description="what the experiment is about, in a few sentences; opens the report"
    )
    results: Results = Field(
        "results", description="folder of everything that the experiment makes; with a `limit`, its subfolder `limitN`"
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        [0],
        min_length=1,
        max_length=1000,
        description="seeds of fits and of sampled generation; each fitted arm is made once per seed; at most 1,000",
    )
    final_seeds: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="how many seeds there will be at the last look; null: those of `seeds`. Write it before you look "
        "at fewer. Answers at fewer seeds, or with a `limit`, are early looks: they spend little of the 5% error, and "
        "decide little. Once all planned seeds and examples were looked at, all of it is spent",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="most rows of every eval and training set; the report says so. Limited results have a folder of "
        "their own, such as `results/limit32`, so that a quick look leaves full results as they are",
    )
    mirror: str | None = Field(
        None,
        description="folder with the catalog's files, which is read instead of the network; null takes the environment "
        "variable IMPRINT_DATA_MIRROR",
    )
    accept_licences: list[str] = Field([], description="non-commercial catalog entries whose licence you accept")
    track: str | None = Field(
        None,
        description="what shows the curves of fits while they run (module in imprint/trackers); its files lie in the "
        "folder `track` beside a fit's weights. It never enters an arm's identity: a change of it reruns nothing, so "
        "fits that are finished are not shown",
    )
    engine: Engine = Field(default_factory=lambda: Engine.model_validate({}), description="what runs the models")
    models: dict[Name, Model] = Field(min_length=1, description="base weights")
    datasets: dict[Name, Dataset] = Field({}, description="rows")
    evals: dict[Name, Eval] = Field({}, description="what is measured")
    arms: dict[Name, Arm] = Field(min_length=1, description="what is compared")
    questions: dict[Name, Question] = Field(
        {},
        description="what the experiment is made to find out, three to eight questions; they get verdicts, and every "
        "other comparison is an exploration",
    )
    analyses: dict[Name, AnalysisRef] = Field(
        {}, description="what is computed from arms' weights or from datasets (modules in imprint/analyses)"
    )
    charts: list[str] = Field(
        [
            *("answers", "scores", "differences", "pairs", "frontier"),
            *("instruction_types", "loss_curves", "coefficients", "vector_similarity"),
        ],
        description="modules in imprint/charts, in order",
    )

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) != len(value):
            raise ValueError(f"found {value}; write each seed once")
        return value

    @field_validator("track")
    @classmethod
    def _installed(cls, value: str | None) -> str | None:
        package = "" if value is None else references.load("trackers", value).PACKAGE
        if package and importlib.util.find_spec(package) is None:
            raise ValueError(
                f"'{value}' needs the package {package}, which is not installed; write "
                f"`.venv/bin/pip install -c requirements.lock {package}`, or leave `track` out"
            )
        return value

    @field_validator("charts")
    @classmethod
    def _charts(cls, value: list[str]) -> list[str]:
        for name in value:
            references.load("charts", name)
        if len(set(value)) != len(value):
            raise ValueError(f"found {value}; write each chart once")
        return value

    @model_validator(mode="after")
    def _ends_later(self) -> Config:
        if self.final_seeds is not None and self.final_seeds < len(self.seeds):
            raise ValueError(f"final_seeds: found {self.final_seeds}, but there are {len(self.seeds)} seeds already")
        return self

    def mirror_folder(self) -> Path | None:
        """The folder of the config's `mirror`, else of IMPRINT_DATA_MIRROR; None where both are unset."""
        mirror = self.mirror or os.environ.get("IMPRINT_DATA_MIRROR")
        return Path(mirror) if mirror else None
