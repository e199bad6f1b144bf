"""The DAG, derived from the config: paths, who depends on whom, and the identity of every job.

A rule asks this module for its inputs and for one canonical JSON string, its `params`. That string says *what* a job
makes and nothing of where or how, and holds only what the job depends on, so that editing one arm's learning rate
reruns that arm and what is built on it.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from imprint import catalog, plugins, scoring
from imprint.config import Config
from imprint.identity import canonical, fingerprint


class Run(NamedTuple):
    """One generate job and its score: an arm at a seed on an eval."""

    arm: str
    seed: int
    eval: str


class Experiment:
    """Paths (as strings, for Snakemake) and job identities of one `Config`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        whole = config.results.rstrip("/")
        # A limited run has a folder of its own: it never overwrites full results.
        self.results = f"{whole}/limit{config.limit}" if config.limit else whole

    # Models

    def model_key(self, model: str) -> str:
        """Folder of a model under resources/models: its name and the beginning of its fingerprint, so that two configs
        may give one name to different weights."""
        return self._model_keys[model]

    def model_spec(self, model: str) -> dict[str, Any]:
        """Where a model comes from; its licence does not enter its identity."""
        return self.config.models[model].model_dump(exclude_none=True, exclude={"licence"})

    @cached_property
    def _model_keys(self) -> dict[str, str]:
        return {name: f"{name}-{fingerprint(self.model_spec(name))[:8]}" for name in self.config.models}

    @cached_property
    def models(self) -> dict[str, str]:
        """Folder name -> model name."""
        return {key: name for name, key in self._model_keys.items()}

    def model_manifest(self, model: str) -> str:
        return f"resources/models/{self.model_key(model)}/manifest.json"

    def model_files(self, model: str) -> list[str]:
        """The files of a `path` model, so that a change of its weights is seen."""
        folder = self.config.models[model].path
        return sorted(str(path) for path in Path(folder).glob("*.*") if path.is_file()) if folder else []

    # Datasets

    def dataset(self, name: str) -> str:
        return f"{self.results}/datasets/{name}.parquet"

    def attempts(self, name: str) -> str:
        return f"{self.results}/datasets/{name}.attempts.parquet"

    def datasets(self, synthesised: bool) -> list[str]:
        """Names of the datasets that are, or are not, synthesised."""
        return [name for name, spec in self.config.datasets.items() if (spec.source == "synth") == synthesised]

    def dataset_files(self, name: str) -> list[str]:
        """The files a dataset is read from."""
        spec = self.config.datasets[name]
        if spec.source == "bundled":
            return [f"resources/bundled/{spec.name}"]
        if (entry := spec.entry()) is not None:
            return [f"resources/data/{entry}/{file}" for file in catalog.load()[entry].files]
        tables = spec.tables()
        return sorted(str(path) for path in Path("resources", tables).iterdir()) if tables else []

    def dataset_params(self, name: str) -> str:
        spec = self.config.datasets[name]
        return canonical(
            {
                "dataset": name,
                "source": spec.source,
                "name": spec.name,
                "plugin": spec.plugin,
                "settings": spec.settings.model_dump(mode="json"),
                # Only a synthesiser reads other datasets through `limit`, and asks a model; a reader keeps every row.
                **({"limit": self.config.limit, "engine": self._engine} if spec.source == "synth" else {}),
            }
        )

    def synth_inputs(self, name: str) -> dict[str, list[str]]:
        needs = self.config.synth_needs(name)
        return {
            "datasets": [self.dataset(other) for other in needs.datasets],
            "manifests": [path for arm in needs.arms for path in self.chain(arm, self.config.seeds[0])],
        }

    def asks(self, name: str) -> bool:
        """Whether a synthesised dataset has a teacher, so that its job runs a model."""
        return bool(self.config.synth_needs(name).arms)

    # Arms

    def seeded(self, arm: str) -> bool:
        """Whether the arm's weights depend on the seed: it or an ancestor is fitted."""
        return any(self.config.arms[name].fit for name in self.config.lineage(arm))

    def seeds(self, arm: str, ev: str) -> list[int]:
        """An unfitted greedy arm is the same at every seed: it runs once, as seed 0."""
        return self.config.seeds if self.seeded(arm) or self.config.evals[ev].temperature > 0 else [0]

    def manifest(self, arm: str, seed: int) -> str:
        return f"{self.results}/arms/{arm}/seed{seed}/manifest.json"

    def chain(self, arm: str, seed: int) -> list[str]:
        """Manifests that name the arm's weights: its model's, then those of its fitted ancestors and its own."""
        fitted = [name for name in self.config.lineage(arm) if self.config.arms[name].fit]
        return [self.model_manifest(self.config.root_model(arm)), *(self.manifest(name, seed) for name in fitted)]

    def fitted(self, method: str) -> list[str]:
        """The arms that a method fits."""
        return [name for name, arm in self.config.arms.items() if arm.fit and arm.fit.method == method]

    @cached_property
    def methods(self) -> list[str]:
        return sorted({arm.fit.method for arm in self.config.arms.values() if arm.fit})

    def fit_inputs(self, arm: str, seed: int) -> dict[str, list[str]]:
        """What a training job reads: its parent's weights, and what its method asks for."""
        needs = self.config.needs(arm)
        parent = self.config.arms[arm].parent
        model = self.config.arms[arm].model
        return {
            "manifests": self.chain(parent, seed) if parent else [self.model_manifest(str(model))],
            "datasets": [self.dataset(name) for name in needs.datasets],
            "arms": sorted({path for name in needs.arms for path in self.chain(name, seed)}),
            "runs": [self.generations(Run(name, self.run_seed(name, ev, seed), ev)) for name, ev in needs.runs],
        }

    def run_seed(self, arm: str, ev: str, seed: int) -> int:
        """The seed under which a run stands that is paired with `seed`."""
        return seed if seed in self.seeds(arm, ev) else self.seeds(arm, ev)[0]

    def fit_params(self, arm: str, seed: int) -> str:
        fit = self.config.arms[arm].fit
        assert fit is not None
        needs = self.config.needs(arm)
        return canonical(
            {
                "arm": arm,
                "seed": seed,
                "method": fit.method,
                "settings": fit.settings.model_dump(mode="json"),
                "context": fit.context.model_dump(mode="json"),
                "datasets": list(needs.datasets),
                "arms": {name: self.chain(name, seed) for name in needs.arms},
                "runs": [[name, ev] for name, ev in needs.runs],
                "dtype": self.config.engine.dtype,
                "limit": self.config.limit,
            }
        )

    # Runs

    @cached_property
    def runs(self) -> list[Run]:
        """Every (arm, seed, eval), in config order."""
        return [
            Run(arm, seed, ev)
            for arm in self.config.arms
            for ev in self.config.evals_of(arm)
            for seed in self.seeds(arm, ev)
        ]

    def generations(self, run: Run) -> str:
        return f"{self.results}/generations/{run.arm}/seed{run.seed}/{run.eval}.parquet"

    @cached_property
    def _engine(self) -> dict[str, Any]:
        """The engine's identity: where it runs is none of it."""
        return self.config.engine.model_dump(mode="json", exclude={"device"})

    def prompts(self, run: Run) -> str:
        return f"{self.results}/prompts/{run.arm}/seed{run.seed}/{run.eval}.parquet"

    def scores(self, run: Run) -> str:
        return f"{self.results}/scores/{run.arm}/seed{run.seed}/{run.eval}.parquet"

    def generate_params(self, run: Run) -> str:
        ev = self.config.evals[run.eval]
        asks = plugins.load("scores", ev.score.name).ASKS
        decode = ev.model_dump(mode="json", include={"samples", "temperature", "top_p", "max_new_tokens"})
        return canonical(
            {
                **run._asdict(),
                **(
                    decode
                    if asks == "generate"
                    else {"samples": 1, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 0}
                ),
                "ask": asks,
                "context": self.config.arms[run.arm].apply.context.model_dump(mode="json"),
                "limit": self.config.limit,
                "engine": self._engine,
            }
        )

    @cached_property
    def judged(self) -> list[Run]:
        """The runs that a judge is asked about."""
        return [run for run in self.runs if self.config.evals[run.eval].judge]

    def judgements(self, run: Run) -> str:
        return f"{self.results}/judgements/{run.arm}/seed{run.seed}/{run.eval}.parquet"

    def judge_chain(self, ev: str) -> list[str]:
        """As a synthesis teacher, a judge uses the first seed."""
        judge = self.config.evals[ev].judge
        return self.chain(judge, self.config.seeds[0]) if judge else []

    def arm_of(self, rule: str, wildcards: Any) -> str:
        """The arm whose weights a job loads: a judge's, a teacher's, or the one that it is named after."""
        if rule == "judge":
            return str(self.config.evals[wildcards.eval].judge)
        return self.config.synth_needs(wildcards.dataset).arms[0] if rule == "synthesize" else str(wildcards.arm)

    def judge_params(self, run: Run) -> str:
        ev = self.config.evals[run.eval]
        return canonical(
            {
                **run._asdict(),
                "judge": ev.judge,
                "questions": ev.questions(),
                "limit": self.config.limit,
                "engine": self._engine,
            }
        )

    def score_params(self, run: Run) -> str:
        return canonical(
            {
                **run._asdict(),
                "score": self.config.evals[run.eval].score.model_dump(mode="json"),
                "describe": [ref.model_dump(mode="json") for ref in self.config.evals[run.eval].describe],
                "context": self.config.arms[run.arm].apply.context.model_dump(mode="json"),
                "limit": self.config.limit,
            }
        )

    def metrics(self) -> dict[str, dict[str, tuple[bool, int]]]:
        """Eval -> metric -> (is it the primary one, direction)."""
        found = {}
        for name, ev in self.config.evals.items():
            module = plugins.load("scores", ev.score.name)
            directions = {**module.METRICS, **(scoring.OF_RESPONSES if module.ASKS == "generate" else {})}
            found[name] = {metric: (metric == module.PRIMARY, way) for metric, way in directions.items()}
            for ref in ev.describe:
                found[name] |= dict.fromkeys(plugins.load("scores", ref.name).METRICS, (False, 0))
        return found

    def summary_params(self) -> str:
        """What the statistics depend on beside the scores: which runs there are, and who is compared with whom."""
        return canonical(
            {
                "arms": {name: self.config.evals_of(name) for name in self.config.arms},
                "runs": [list(run) for run in self.runs],
                "metrics": self.metrics(),
                "controls": {name: arm.control for name, arm in self.config.arms.items()},
            }
        )

    def leakage_params(self) -> str:
        """Which training sets stand against which evals."""
        pairs = [(*training, ev) for training in self.trainings() for ev in sorted({run.eval for run in self.runs})]
        return canonical(
            [
                {
                    "arm": arm,
                    "dataset": dataset,
                    "train": self.dataset(dataset),
                    "transductive": transductive,
                    "eval": ev,
                    "held_out": self.dataset(self.config.evals[ev].dataset),
                }
                for arm, dataset, transductive, ev in pairs
            ]
        )

    def trainings(self) -> list[tuple[str, str, bool]]:
        """(arm, training dataset, transductive) of every fit."""
        return [
            (name, dataset, arm.transductive)
            for name, arm in self.config.arms.items()
            for dataset in self.config.trains_on(name)
        ]

    # Code: what a job runs is one of its params, so that an edit reruns it.

    code = staticmethod(plugins.code)

    def dataset_code(self, name: str) -> str:
        spec = self.config.datasets[name]
        if spec.source == "synth":
            return self.code("synthesize", ("synthesis", spec.plugin), ("engines", self.config.engine.name))
        return self.code("prepare", ("datasets", spec.plugin))

    def fit_code(self, arm: str) -> str:
        fit = self.config.arms[arm].fit
        assert fit is not None
        used = self.config.needs(arm).plugins
        return self.code("train", ("methods", fit.method), ("contexts", fit.context.name), *used)

    def analysis_code(self, name: str) -> str:
        return self.code("analyze", ("analyses", self.config.analyses[name].name))

    def generate_code(self, run: Run) -> str:
        context = self.config.arms[run.arm].apply.context.name
        return self.code("generate", ("engines", self.config.engine.name), ("contexts", context))

    def judge_code(self) -> str:
        """Without the scores that ask: their questions are params, and how they read answers changes none."""
        return self.code("judge", ("engines", self.config.engine.name))

    def score_code(self, run: Run) -> str:
        context = self.config.arms[run.arm].apply.context.name
        ev = self.config.evals[run.eval]
        scores = [("scores", ref.name) for ref in (ev.score, *ev.describe)]
        return self.code("score", *scores, ("contexts", context))

    # Tables and charts

    def catalog_params(self, entry: str, file: str) -> str:
        """Identity of a fetched file: where it is mirrored does not enter it."""
        return canonical(catalog.load()[entry].files[file].model_dump(exclude={"mirror"}))

    def leakage_inputs(self) -> list[str]:
        held_out = {self.config.evals[run.eval].dataset for run in self.runs}
        return [self.dataset(name) for name in sorted({dataset for _, dataset, _ in self.trainings()} | held_out)]

    def fitted_manifests(self) -> list[str]:
        """Every manifest of the experiment that a fit makes, in config order."""
        return [
            self.manifest(name, seed) for name, arm in self.config.arms.items() if arm.fit for seed in self.config.seeds
        ]

    def collect_params(self) -> str:
        names = self.datasets(synthesised=True)
        teachers = {name: self.config.synth_needs(name).arms[0] for name in names if self.asks(name)}
        spec = {"results": self.results, "teachers": teachers, "teacher_seed": self.config.seeds[0]}
        runs = {"generate": self.runs, "judge": self.judged}
        return canonical({**spec, **{stage: [list(run) for run in some] for stage, some in runs.items()}})

    def analysis(self, name: str) -> str:
        return f"{self.results}/analyses/{name}.parquet"

    def analysis_inputs(self, name: str) -> list[str]:
        arms = self.config.analysis_needs(name).arms
        return sorted({path for seed in self.config.seeds for arm in arms for path in self.chain(arm, seed)})

    def analysis_params(self, name: str) -> str:
        ref, arms = self.config.analyses[name], self.config.analysis_needs(name).arms
        return canonical(
            {
                "analysis": name,
                "plugin": ref.name,
                "settings": ref.settings.model_dump(mode="json"),
                "arms": [[seed, {arm: self.chain(arm, seed) for arm in arms}] for seed in self.config.seeds],
            }
        )

    TABLES = ("summary", "comparisons", "costs", "curves", "coefficients", "contamination", "synthesis")

    def table(self, name: str) -> str:
        return f"{self.results}/tables/{name}.parquet"

    def tables(self) -> dict[str, Any]:
        """Every table by name: one file for the small ones, a list of files for those with a row per example."""
        evals = {run.eval for run in self.runs}
        datasets = {self.config.evals[name].dataset for name in evals} | {name for _, name, _ in self.trainings()}
        return {
            **{name: self.table(name) for name in self.TABLES},
            "datasets": [self.dataset(name) for name in sorted(datasets | set(self.datasets(synthesised=True)))],
            "analyses": [self.analysis(name) for name in self.config.analyses],
            "prompts": [self.prompts(run) for run in self.runs],
            "generations": [self.generations(run) for run in self.runs],
            "judgements": [self.judgements(run) for run in self.judged],
            "scores": [self.scores(run) for run in self.runs],
        }

    def outputs(self) -> list[str]:
        """Every file that a rule declares: what is fetched, then what stands in the results folder."""
        read = [path for name in self.datasets(synthesised=False) for path in self.dataset_files(name)]
        charts = [f"{self.results}/charts/{name}.{kind}" for name in self.config.charts for kind in ("svg", "md")]
        tables = [[paths] if isinstance(paths, str) else paths for paths in self.tables().values()]
        return list(
            dict.fromkeys(
                [
                    *(self.model_manifest(name) for name in self.config.models),
                    *(path for path in read if path.startswith("resources/data/")),
                    *(self.dataset(name) for name in self.config.datasets),
                    *(self.attempts(name) for name in self.datasets(synthesised=True)),
                    *self.fitted_manifests(),
                    *(path for paths in tables for path in paths),
                    *charts,
                    f"{self.results}/imprint.duckdb",
                    f"{self.results}/report.html",
                ]
            )
        )

    def chart_inputs(self, chart: str) -> list[str]:
        """The files of the tables that a chart reads, in the chart's order."""
        tables = self.tables()
        files = [tables[name] for name in plugins.constant("charts", chart, "TABLES")]
        return [path for entry in files for path in ([entry] if isinstance(entry, str) else entry)]
