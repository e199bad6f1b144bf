"""The stages that read many runs: tables, analyses, the database, charts, and the report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from imprint.analyses import _job as analysis
from imprint.analyses import _probe as probing
from imprint.charts import _job as plotting
from imprint.config import graph
from imprint.config.evals import Eval
from imprint.dag import asked, described, report_facts
from imprint.dag.jobs import Jobs
from imprint.dag.policies import policy_of
from imprint.report import ASSETS, costs, facts
from imprint.runtime import plugins, stages
from imprint.runtime.plugins import Inputs
from imprint.scoring import score_run
from imprint.statistics import summarize
from imprint.tables import contamination, database


class OfAnalysis(NamedTuple):
    """The name of an analysis in the config."""

    analysis: str


class OfChart(NamedTuple):
    """The name of a chart."""

    chart: str


class CheckLeakage(Jobs):
    """The check for rows that are in a training dataset and in an eval. Contents are compared, so it reads all rows."""

    name = "check_leakage"

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        pairs = self.spec(wildcards).pairs
        held_out = {self.experiment.dataset(self.config.evals[run.eval].dataset) for run in self.experiment.measured}
        return {"datasets": sorted({pair.train for pair in pairs} | held_out)}

    def spec(self, wildcards: Any) -> contamination.Spec:
        tests = graph.held_out(self.config)
        return contamination.Spec(
            pairs=[
                contamination.Pair(
                    arm=arm,
                    dataset=dataset,
                    train=self.experiment.dataset(dataset),
                    transductive=self.config.arms[arm].transductive,
                    eval=ev,
                    held_out=self.experiment.dataset(self.config.evals[ev].dataset),
                    near=graph.near_copies_count(self.config, dataset, self.config.evals[ev].dataset),
                )
                for arm, dataset in self.experiment.trainings
                for ev in tests[arm]
            ]
        )


class Summarize(Jobs):
    name = "summarize"

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        names = sorted(set(self.spec(wildcards).datasets.values()))
        return {
            "scores": tables(self)["scores"],
            "datasets": [self.experiment.dataset(name) for name in names],
            "manifests": [
                self.experiment.fitted(arm, seed)
                for arm in asked.curves(self.config)
                for seed in self.experiment.fit_seeds(arm)
            ],
        }

    def spec(self, wildcards: Any) -> summarize.Spec:
        return summarize.Spec(
            arms={name: self.experiment.measured_on(name) for name in self.config.arms},
            runs=[(run.arm, run.seed, run.eval) for run in self.experiment.measured],
            fitted=[name for name in self.config.arms if self.experiment.trained_by_seed(name)],
            single=[name for name in self.config.arms if self._of_one_run(name)],
            metrics=self._metrics(),
            controls={name: arm.control for name, arm in self.config.arms.items()},
            datasets={run.eval: self.config.evals[run.eval].dataset for run in self.experiment.measured},
            questions=asked.questions(self.config),
            plan=asked.plan(self.experiment),
        )

    def _of_one_run(self, arm: str) -> bool:
        return self.experiment.trained(arm) and not self.experiment.trained_by_seed(arm)

    def _metrics(self) -> dict[str, dict[str, tuple[bool, int]]]:
        metrics: dict[str, dict[str, tuple[bool, int]]] = {}
        for name, ev in scored(self).items():
            directions = {**ev.metrics, **(score_run.OF_RESPONSES if ev.asks == "generate" else {})}
            metrics[name] = {metric: (metric == ev.primary, way) for metric, way in directions.items()}
            for ref in ev.describe:
                metrics[name] |= dict.fromkeys(plugins.load("scores", ref.name).METRICS, (False, 0))
        return metrics


class Collect(Jobs):
    name = "collect"

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        path = self.experiment.path
        return {
            "manifests": [path("train", "manifest", arm=arm, seed=seed) for arm, seed in self.experiment.fits],
            "synthesis": [path("synthesize", "synthesis", dataset=name) for name in self.experiment.synthesised],
            "generations": tables(self)["generations"],
            "judgements": tables(self)["judgements"],
            "analyses": [path("probe", "analyses", **job._asdict()) for job in Probe(self.experiment).jobs()],
        }

    def spec(self, wildcards: Any) -> costs.Spec:
        """Every job that runs a model. The costs of a synthesis are its teacher's."""
        fits = [self._costed("train", arm, seed, arm=arm, seed=seed) for arm, seed in self.experiment.fits]
        made = self.experiment.synthesised
        teachers = {name: teacher for name in made if (teacher := self.config.datasets[name].teacher())}
        syntheses = [
            self._costed("synthesize", teacher, self.config.seeds[0], dataset=name)
            for name, teacher in teachers.items()
        ]
        runs, judged = self.experiment.asked, self.experiment.judged
        generations = [self._costed("generate", run.arm, run.seed, run.eval, **run._asdict()) for run in runs]
        judgements = [self._costed("judge", run.arm, run.seed, run.eval, **run._asdict()) for run in judged]
        probes = Probe(self.experiment)
        probed = [
            self._costed("probe", probes.arm(job), self.config.seeds[0], **job._asdict()) for job in probes.jobs()
        ]
        return costs.Spec(jobs=[*fits, *syntheses, *generations, *judgements, *probed])

    def _costed(self, name: str, of_arm: str, of_seed: int, of_eval: str | None = None, **job: Any) -> costs.Costed:
        stage = stages.STAGES[name]
        output = next(iter(stage.outputs))
        return costs.Costed(
            stage=name,
            arm=of_arm,
            seed=of_seed,
            eval=of_eval,
            output=self.experiment.path(name, output, **job),
            table=output if of_eval else None,
        )


class Analyze(Jobs):
    """Analyses that run no model."""

    name = "analyze"

    def jobs(self) -> Iterable[OfAnalysis]:
        return [
            OfAnalysis(name)
            for name in self.config.analyses
            if bool(graph.asked_by(self.config, name)) == self.stage.runs_model
        ]

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        reads = graph.of_analysis(self.config, wildcards.analysis)
        files = [self.experiment.files(reads, seed) for seed in self._seeds(reads)]
        return {
            "datasets": files[0]["datasets"],
            "arms": sorted({path for of_seed in files for path in of_seed["arms"]}),
            "runs": [path for of_seed in files for path in of_seed["runs"]],
        }

    def spec(self, wildcards: Any) -> analysis.Spec:
        ref, reads = self.config.analyses[wildcards.analysis], graph.of_analysis(self.config, wildcards.analysis)
        return analysis.Spec(
            analysis=wildcards.analysis,
            plugin=ref.name,
            settings=ref.settings.model_dump(mode="json"),
            inputs=[(seed, self.experiment.named(reads, seed)) for seed in self._seeds(reads)],
            limit=self.config.limit,
        )

    def _seeds(self, reads: Inputs) -> list[int]:
        """The seeds of an analysis; the first alone where arms are read and no seed changes them."""
        once = reads.arms and not self.experiment.reads_by_seed(reads)
        return self.config.seeds[:1] if once else self.config.seeds

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        reads = graph.of_analysis(self.config, wildcards.analysis)
        return [("analyses", self.config.analyses[wildcards.analysis].name), *graph.read_with(self.config, reads)]


class Probe(Analyze):
    """Analyses that ask an arm or record its activations."""

    name = "probe"

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        reads = graph.of_analysis(self.config, wildcards.analysis)
        chains = [self.experiment.chain(self.arm(wildcards), seed) for seed in self._seeds(reads)]
        return {"manifests": [path for chain in chains for path in chain], **super().inputs(wildcards)}

    def spec(self, wildcards: Any) -> probing.Spec:
        return probing.Spec(**dict(super().spec(wildcards)), policy=policy_of(self.config, self.arm(wildcards)))

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        arm = self.arm(wildcards)
        applied = ((ref.kind, ref.name) for ref in self.config.arms[arm].apply.plugged())
        return [*super().plugins(wildcards), *graph.asked_with(self.config, arm), *applied]

    def arm(self, wildcards: Any) -> str:
        return str(graph.asked_by(self.config, wildcards.analysis))


class Database(Jobs):
    name = "database"

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        texts = [self.experiment.path("score", "scored_texts", **run._asdict()) for run in self.experiment.scored]
        return {**tables(self), "scored_texts": texts}

    def spec(self, wildcards: Any) -> database.Spec:
        return described.spec(self.config)


class Plot(Jobs):
    name = "plot"

    def jobs(self) -> Iterable[OfChart]:
        return map(OfChart, self.config.charts)

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        """The files of the tables that a chart reads, in the order of its `TABLES`, and the template of its caption."""
        files = [path for paths in self.spec(wildcards).tables.values() for path in paths]
        return {"tables": files, "caption": f"resources/captions/{wildcards.chart}.md"}

    def spec(self, wildcards: Any) -> plotting.Spec:
        files = tables(self)
        return plotting.Spec(
            chart=wildcards.chart,
            tables={name: files[name] for name in plugins.load("charts", wildcards.chart).TABLES},
            arms=list(self.config.arms),
            evals=[(name, report_facts.of_eval(self.experiment, name)) for name in scored(self)],
        )

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        return [("charts", wildcards.chart)]


class Report(Jobs):
    name = "report"

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        path, charts = self.experiment.path, self.config.charts
        return {
            **tables(self),
            "charts": [path("plot", "svg", chart=chart) for chart in charts],
            "captions": [path("plot", "caption", chart=chart) for chart in charts],
            "template": "resources/report.html.jinja",
            "assets": [f"resources/{name}" for name in ASSETS],
            "manifests": [path("train", "manifest", arm=arm, seed=seed) for arm, seed in self.experiment.fits],
        }

    def spec(self, wildcards: Any) -> facts.Spec:
        return report_facts.facts_of(self.experiment)

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        contexts = [("contexts", ref.name) for arm in self.config.arms.values() for ref in arm.apply.context]
        return [*(("scores", ev.score.name) for ev in scored(self).values() if ev.score), *contexts]


def scored(jobs: Jobs) -> dict[str, Eval]:
    """The evals that have a score."""
    return {name: ev for name, ev in jobs.config.evals.items() if ev.score}


def tables(jobs: Jobs) -> dict[str, list[str]]:
    """Table -> its files, for every table that the database, the charts and the report read."""
    experiment, config = jobs.experiment, jobs.config
    used = {config.evals[run.eval].dataset for run in experiment.runs} | {name for _, name in experiment.trainings}
    of_runs = {
        name: [experiment.path(stage, name, **run._asdict()) for run in runs]
        for stage, name, runs in (
            ("generate", "prompts", experiment.own),
            ("generate", "generations", experiment.own),
            ("judge", "judgements", experiment.judged),
            ("score", "scores", experiment.measured),
        )
    }
    return {
        **{name: [experiment.path(stage, name)] for name, stage in TABLES.items()},
        "datasets": [experiment.dataset(name) for name in sorted(used | set(experiment.synthesised))],
        "analyses": [experiment.path("analyze", "analyses", analysis=name) for name in config.analyses],
        **of_runs,
    }


TABLES = {name: stage for stage in ("summarize", "collect", "check_leakage") for name in stages.STAGES[stage].outputs}
"""Table of the whole experiment -> the stage that makes it."""


JOBS = (CheckLeakage, Summarize, Collect, Analyze, Probe, Database, Plot, Report)
