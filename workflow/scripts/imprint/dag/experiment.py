"""An experiment: a config, and the paths and seeds that follow from it. The kinds of jobs are in dag/jobs."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

from imprint.config import graph
from imprint.config.schema import Config
from imprint.models import folders
from imprint.runtime import plugins
from imprint.runtime.identity import fingerprint
from imprint.runtime.plugins import Inputs, Plug
from imprint.runtime.stages import STAGES
from imprint.tables.inputs import Named


class Run(NamedTuple):
    """An arm at a seed on an eval: a job of `generate`, or one that imports it, unless the eval has the responses of
    another one; and a job of `score`, unless the eval only samples."""

    arm: str
    seed: int
    eval: str


class Experiment:
    """The paths (as text, for Snakemake), seeds, runs and fits of a config."""

    def __init__(self, config: Config) -> None:
        self.config = config
        folder = config.results.rstrip("/")
        self._seeded: dict[str, bool] = {}  # arm -> what `seeded` has found
        # A limited run has a folder of its own, so that it never overwrites full results.
        self.results = f"{folder}/limit{config.limit}" if config.limit else folder

    def path(self, stage: str, output: str, **job: Any) -> str:
        """The path of an output of a job; `job` has the values of the pattern's wildcards."""
        pattern = STAGES[stage].outputs[output].format(**job)
        return pattern if pattern.startswith("resources/") else f"{self.results}/{pattern}"

    # Models

    def model_spec(self, model: str) -> dict[str, Any]:
        """The source of a model, as its fetch job's spec has it. What says how the model is run or asked does not enter
        its identity."""
        how = {"licence", "engine", "key_env", "limits"}
        return self.config.models[model].model_dump(exclude_none=True, exclude=how)

    def model_key(self, model: str) -> str:
        """The folder of a model under resources/models: NAME-FINGERPRINT, with 8 hex digits, so that two configs may
        give one name to different weights."""
        return self._model_keys[model]

    @cached_property
    def _model_keys(self) -> dict[str, str]:
        return {name: f"{name}-{fingerprint(self.model_spec(name))[:8]}" for name in self.config.models}

    @cached_property
    def models(self) -> dict[str, str]:
        """Folder name -> model name."""
        return {key: name for name, key in self._model_keys.items()}

    # Arms

    def seeded(self, arm: str) -> bool:
        """Whether the arm's weights depend on the seed: its own fit does, or that of an ancestor."""
        if arm not in self._seeded:
            self._seeded[arm] = any(self._fit_depends_on_seed(name) for name in graph.lineage(self.config, arm))
        return self._seeded[arm]

    def _fit_depends_on_seed(self, arm: str) -> bool:
        """Whether a fit draws by the seed, or reads what depends on it. Given weights do neither: they are what one
        training run has left, whatever the seed."""
        fit = self.config.arms[arm].fit
        return fit is not None and (
            bool(plugins.load("methods", fit.method).draws(fit.settings))
            or self.reads_by_seed(graph.of_fit(self.config, arm))
        )

    def reads_by_seed(self, inputs: Inputs) -> bool:
        """Whether inputs depend on the seed."""
        return any(map(self.seeded, inputs.arms)) or any(self._depends_on_seed(*run) for run in inputs.runs)

    def trained(self, arm: str) -> bool:
        """Whether the arm's answers depend on training: its weights do, or those of an arm that it reads when asked."""
        lineages = (graph.lineage(self.config, name) for name in self._behind_answers(arm))
        return any(self.config.arms[name].fit for lineage in lineages for name in lineage)

    def trained_by_seed(self, arm: str) -> bool:
        """Whether this training is done anew for each seed. If not, an arm that is trained shows a single training run,
        however many seeds it is asked at."""
        return any(map(self.seeded, self._behind_answers(arm)))

    def _behind_answers(self, arm: str) -> list[str]:
        """The arm, and the arms that it reads when it is asked."""
        reads = graph.of_apply(self.config, arm)
        return [arm, *reads.arms, *(read for read, _ in reads.runs)]

    def fit_seeds(self, arm: str) -> list[int]:
        """The seeds at which an arm is fitted: all seeds of the config, [0] where none changes the weights, and [] for
        an arm without a fit."""
        if not self.config.arms[arm].fit:
            return []
        return self.config.seeds if self.seeded(arm) else [0]

    def fitted(self, arm: str, seed: int) -> str:
        """The manifest of an arm's own fit that belongs to a seed."""
        return self.path("train", "manifest", arm=arm, seed=seed if self.seeded(arm) else 0)

    def seeds(self, arm: str, ev: str) -> list[int]:
        """The seeds of an arm's runs on an eval: all seeds of the config, or [0] where no part of the run depends on a
        seed."""
        return self.config.seeds if self._depends_on_seed(arm, ev) else [0]

    def _depends_on_seed(self, arm: str, ev: str) -> bool:
        if self.config.arms[arm].runs:
            return False
        environment = self.config.evals[ev].environment
        plugged = [*self.config.arms[arm].apply.plugged(), *([environment] if environment else [])]
        return (
            self.seeded(arm)
            or self.config.evals[ev].temperature > 0
            or any(graph.draws(ref) for ref in plugged)
            or self.reads_by_seed(graph.of_run(self.config, arm, ev))
        )

    def run_seed(self, arm: str, ev: str, seed: int) -> int:
        """The seed of the run to pair with `seed`: the same one, or 0 for an unfitted greedy arm, which runs once."""
        return seed if seed in self.seeds(arm, ev) else self.seeds(arm, ev)[0]

    def chain(self, arm: str, seed: int) -> list[str]:
        """The manifests of an arm's weights: that of its root model, then those of all fits in its lineage, root first,
        whose artifacts count as weights."""
        key = self.model_key(graph.root_model(self.config, arm))
        fits = [name for name in graph.lineage(self.config, arm) if graph.makes_weights(self.config, name)]
        return [
            self.path("fetch_model", "manifest", model=key),
            *(self.fitted(name, seed) for name in fits),
        ]

    def artifact(self, arm: str, seed: int) -> list[str]:
        """The manifests that a plug-in gets for an arm that it names: `chain`, and the manifest of the arm's own fit
        where the fit's artifact does not count as weights."""
        chain = self.chain(arm, seed)
        own = self.fitted(arm, seed)
        return [*chain, own] if self.config.arms[arm].fit and own not in chain else chain

    # What plug-ins read

    def files(self, inputs: Inputs, seed: int) -> dict[str, list[str]]:
        """What a plug-in reads, as inputs of a rule: files of datasets, manifests of arms, generations of runs, and the
        user's weights."""
        arms = [path for name in inputs.arms for path in self.artifact(name, seed)]
        return {
            "datasets": [self.dataset(name) for name in inputs.datasets],
            "arms": sorted(set(arms)),
            "runs": [self.responses(arm, self.run_seed(arm, ev, seed), ev) for arm, ev in inputs.runs],
            "weights": [str(file) for folder in inputs.folders for file in folders.files(folder)],
        }

    def named(self, inputs: Inputs, seed: int) -> Named:
        """What a plug-in reads, by name, as a part of a job's spec. `files` gives the same as paths for a rule."""
        arms = {name: self.artifact(name, seed) for name in inputs.arms}
        return Named(datasets=list(inputs.datasets), arms=arms, runs=list(inputs.runs))

    def dataset(self, name: str) -> str:
        """The file of a dataset, whichever stage makes it."""
        return self.path("prepare", "datasets", dataset=name)

    # Runs

    @cached_property
    def runs(self) -> list[Run]:
        """Every (arm, seed, eval), in config order."""
        return [Run(arm, seed, ev) for arm, ev in graph.runs_of(self.config) for seed in self.seeds(arm, ev)]

    def responses(self, arm: str, seed: int, ev: str) -> str:
        """The file with the generations of a run; several evals may score it."""
        return self.path("generate", "generations", arm=arm, seed=seed, eval=graph.source(self.config, ev))

    @cached_property
    def own(self) -> list[Run]:
        """The runs with responses of their own."""
        return [run for run in self.runs if graph.source(self.config, run.eval) == run.eval]

    @cached_property
    def measured(self) -> list[Run]:
        """The runs whose responses have scores."""
        return [run for run in self.runs if self.config.evals[run.eval].score]

    def measured_on(self, arm: str) -> list[str]:
        """The evals on which an arm has scores, in config order."""
        return list(dict.fromkeys(run.eval for run in self.measured if run.arm == arm))

    def result(self, run: Run) -> str:
        """The scores of a run; its responses where nothing scores them."""
        scored = self.config.evals[run.eval].score
        return self.path("score", "scores", **run._asdict()) if scored else self.responses(*run)

    @cached_property
    def imported(self) -> list[Run]:
        """The runs that another harness has logged."""
        return [run for run in self.own if self.config.arms[run.arm].runs]

    @cached_property
    def valued(self) -> list[Run]:
        """The imported runs whose own values are taken, so that they are neither judged nor scored here."""
        logged = [run for run in self.measured if run in self.imported]
        return [run for run in logged if (runs := self.config.arms[run.arm].runs) and runs.metrics is not None]

    @cached_property
    def asked(self) -> list[Run]:
        """The runs that are made here."""
        return [run for run in self.own if run not in self.imported]

    @cached_property
    def scored(self) -> list[Run]:
        """The runs that are scored here."""
        return [run for run in self.measured if run not in self.valued]

    @cached_property
    def judged(self) -> list[Run]:
        """The runs whose eval has a judge."""
        return [run for run in self.scored if self.config.evals[run.eval].judge]

    @cached_property
    def fits(self) -> list[tuple[str, int]]:
        """Every (arm, seed) that is fitted, in config order."""
        return [(name, seed) for name in self.config.arms for seed in self.fit_seeds(name)]

    @cached_property
    def trainings(self) -> list[tuple[str, str]]:
        """Every (arm, dataset) where the arm is made with rows of the dataset."""
        return [(arm, dataset) for arm in self.config.arms for dataset in graph.sees(self.config, arm)]

    @cached_property
    def synthesised(self) -> list[str]:
        """The names of the datasets that are made from others."""
        return [name for name, dataset in self.config.datasets.items() if dataset.source == "synth"]


def plug(ref: Any) -> Plug:
    """A plug-in that the config names, in the form of a job's spec."""
    return Plug(name=ref.name, settings=ref.settings.model_dump(mode="json"))
