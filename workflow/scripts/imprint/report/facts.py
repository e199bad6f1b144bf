"""The facts that the report shows and no table holds: the spec of the report job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from imprint.runtime.plugins import Plug, Strict


class Source(Strict):
    """A model or dataset that went into the experiment."""

    name: str
    source: str = Field(description="where it comes from: package and version, repository and commit, generator")
    licence: str | None = None
    sha256: str | None = None
    rows: int | None = None


class Fit(Strict):
    """A training run of an arm. What the manifest says is filled in when the page is written."""

    seed: int
    manifest: str = Field(description="path of the manifest")
    fingerprint: str | None = None
    weights: dict[str, str] = Field(default_factory=dict, description="file -> sha256")
    data: dict[str, str] = Field(default_factory=dict, description="dataset -> sha256 of its rows")


class Job(Strict):
    """A job that made or asked an arm."""

    stage: str
    seed: int
    eval: str | None = None
    name: str
    log: str = Field(description="path of its log, below the results folder")


class Arm(Strict):
    """An arm, in words."""

    name: str
    what: str = Field(description="its parent, fit and apply in one line")
    settings: str = Field(
        default="", description="the keys of its fit and apply that the config sets, or that differ from another arm's"
    )
    fits: list[Fit] = Field(default_factory=list)
    jobs: list[Job] = Field(default_factory=list)
    control: list[str] = Field(default_factory=list)
    transductive: list[str] = Field(
        default_factory=list, description="the arms that may have seen rows of evals, of those that it is made from"
    )
    contexts: list[Plug] = Field(
        default_factory=list, description="its contexts, which say what part of a response is scored"
    )


class Eval(Strict):
    """An eval, in words."""

    name: str
    dataset: str
    score: str | None = Field(description="None where the eval only samples")
    responses: str | None = Field(default=None, description="the eval whose responses it scores; None for its own")
    scorer: Plug | None = Field(
        default=None,
        description="the score as a plug-in, which says in words what a verdict asks for; None where it is unknown",
    )
    asks: Literal["generate", "loglikelihood"]
    retention: bool = Field(False, description="it measures what an arm may lose, not what it should gain")
    distribution: str = Field("", description="whether some arm is trained on its kinds of rows, in words")
    private: bool = Field(False, description="its examples may not be published, so none is shown")


class Spec(Strict):
    """The facts of an experiment that no table holds."""

    title: str
    about: str = Field("", description="what the experiment is about")
    arms: list[Arm]
    evals: list[Eval]
    models: list[Source]
    datasets: list[Source]
    seeds: list[int]
    limit: int | None
    partial: str = Field(default="", description="how much is finished, where the report is on that part alone")
    questions: list[str] = Field(default=[], description="what a partial report leaves to the report at the end")
    folder: str = Field("results", description="where the tables lie, as shown to the reader")


class Provenance(Strict):
    """What the report was made with, and by which machines; nothing of it decides a number."""

    versions: dict[str, str]
    commit: str | None = None
    changes: list[str] = Field(default=[], description="files that differ from the commit or are not in it")
    configs: list[str] = Field(default=[], description="config files, and keys that the command line has overridden")
    date: str = Field(default="", description="when the report was written")
    machine: str = Field(default="", description="the machine that has written the report, in words")
    machines: dict[str, int] = Field(default={}, description="machine, in words -> jobs that ran a model on it")
