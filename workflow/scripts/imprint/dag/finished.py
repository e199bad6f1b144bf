"""What an experiment has finished so far: its fits and runs that a run of all would not make again.

Their files stay as they are. The tables and charts, which a run makes at its end, lie in a folder of their own. So they
can be made while the run goes on."""

from __future__ import annotations

from collections.abc import Container
from functools import cached_property
from pathlib import Path

from imprint.dag import asked
from imprint.dag.experiment import Experiment, Run
from imprint.runtime import plugins, stages

MADE_APART = ("check_leakage", "summarize", "collect", "plot")
"""The stages whose outputs lie in the folder apart."""


class Finished(Experiment):
    """The finished part of an experiment, without its questions. A question is answered once, when all its data are
    there; each look before that would cost a share of its certainty (`statistics.looks`). `questions` are their
    words."""

    def __init__(self, whole: Experiment, missing: Container[str], apart: Path) -> None:
        """`missing`: the files that a run would still make. `apart`: the folder of the tables and charts."""
        self._whole, self._missing, self._apart = whole, missing, apart
        config = whole.config
        self.questions = list(dict.fromkeys(question.asks for question in asked.questions(config)))
        shown = [name for name in config.charts if "answers" not in plugins.load("charts", name).TABLES]
        analyses = {
            name: ref
            for name, ref in config.analyses.items()
            if self._is_made(whole.path("analyze", "analyses", analysis=name))
        }
        super().__init__(config.model_copy(update={"questions": {}, "charts": shown, "analyses": analyses}))

    def path(self, stage: str, output: str, **job: object) -> str:
        """The path of an output of a job, in the folder apart for those of `MADE_APART`."""
        if stage in MADE_APART:
            return str(self._apart / stages.STAGES[stage].outputs[output].format(**job))
        return super().path(stage, output, **job)

    @cached_property
    def runs(self) -> list[Run]:
        """The finished runs: those that are scored, or, where nothing scores them, those that are asked."""
        return [run for run in self._whole.runs if self._is_made(self.result(run))]

    def fit_seeds(self, arm: str) -> list[int]:
        """The seeds at which the fit of an arm is finished."""
        seeds = super().fit_seeds(arm)
        return [seed for seed in seeds if self._is_made(self.path("train", "manifest", arm=arm, seed=seed))]

    @cached_property
    def trainings(self) -> list[tuple[str, str]]:
        """Every (arm, dataset) where the arm is made with rows of the dataset, and is finished at some seed."""
        return [(arm, dataset) for arm, dataset in self._whole.trainings if self._trained_here(arm)]

    @cached_property
    def synthesised(self) -> list[str]:
        """The names of the finished datasets that are made from others."""
        return [name for name in self._whole.synthesised if self._is_made(self.dataset(name))]

    def words(self) -> str:
        """How much is finished: "3 of 10 fits and 12 of 40 runs are finished"."""
        fits, runs = (
            f"{len(here):,} of {len(of_all):,} {what}"
            for what, here, of_all in (
                ("fits", self.fits, self._whole.fits),
                ("runs on evals", self.runs, self._whole.runs),
            )
        )
        return f"{fits} and {runs} are finished" if self._whole.fits else f"{runs} are finished"

    def _trained_here(self, arm: str) -> bool:
        return not self._whole.fit_seeds(arm) or bool(self.fit_seeds(arm))

    def _is_made(self, path: str) -> bool:
        return path not in self._missing and Path(path).is_file()
