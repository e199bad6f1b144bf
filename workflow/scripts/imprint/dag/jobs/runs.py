"""The stages with a job for each run (an arm at a seed on an eval): `generate`, `import_run`, `import_values`, `judge`,
`score`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from imprint.config import arms, graph
from imprint.dag.experiment import Run, plug
from imprint.dag.jobs import Jobs
from imprint.dag.policies import policy_of
from imprint.imports import _job as importing
from imprint.imports import _values as values
from imprint.policies import generation, judging
from imprint.runtime import plugins
from imprint.runtime.plugins import Plug, Strict
from imprint.scoring import score_run


class OfRuns(Jobs):
    """Base of the stages with a job for each run."""

    def jobs(self) -> Iterable[Run]:
        return self.experiment.runs

    def responses(self, wildcards: Any) -> str:
        """The file with the generations of the run."""
        return self.experiment.responses(wildcards.arm, wildcards.seed, wildcards.eval)

    def dataset(self, wildcards: Any) -> str:
        """The file of the eval's dataset."""
        return self.experiment.dataset(self.config.evals[wildcards.eval].dataset)


class Generate(OfRuns):
    name = "generate"

    def jobs(self) -> Iterable[Run]:
        return self.experiment.asked

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        seed = int(wildcards.seed)
        reads = graph.of_run(self.config, wildcards.arm, wildcards.eval)
        return {
            "manifests": self.experiment.chain(wildcards.arm, seed),
            "dataset": self.dataset(wildcards),
            **self.experiment.files(reads, seed),
        }

    def spec(self, wildcards: Any) -> generation.Spec:
        ev = self.config.evals[wildcards.eval]
        written = ev.asks == "generate"
        return generation.Spec(
            arm=wildcards.arm,
            seed=int(wildcards.seed),
            eval=wildcards.eval,
            ask=ev.asks,
            policy=policy_of(self.config, wildcards.arm),
            environment=plug(ev.environment) if ev.environment else None,
            inputs=self.experiment.named(graph.of_run(self.config, wildcards.arm, wildcards.eval), int(wildcards.seed)),
            samples=ev.samples if written else 1,
            temperature=ev.temperature if written else 0.0,
            top_p=ev.top_p if written else 1.0,
            max_new_tokens=ev.max_new_tokens if written else 0,
            limit=self.config.limit,
        )

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        ev = self.config.evals[wildcards.eval]
        return [
            *graph.asked_with(self.config, wildcards.arm),
            *((ref.kind, ref.name) for ref in self.config.arms[wildcards.arm].apply.plugged()),
            *([("environments", ev.environment.name)] if ev.environment else []),
            *graph.read_with(self.config, graph.of_run(self.config, wildcards.arm, wildcards.eval)),
        ]


class ImportRun(OfRuns):
    """The responses of runs that another harness has logged."""

    name = "import_run"

    def jobs(self) -> Iterable[Run]:
        return self.experiment.imported

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        return {"log": self.runs(wildcards).evals[wildcards.eval], "dataset": self.dataset(wildcards)}

    def runs(self, wildcards: Any) -> arms.Runs:
        """The part of the config that names the logs."""
        runs = self.config.arms[wildcards.arm].runs
        assert runs is not None
        return runs

    def spec(self, wildcards: Any) -> Strict:
        ev, runs = self.config.evals[wildcards.eval], self.runs(wildcards)
        return importing.Spec(
            arm=wildcards.arm,
            seed=int(wildcards.seed),
            eval=wildcards.eval,
            reader=Plug(name=runs.reader, settings=runs.settings.model_dump(mode="json")),
            samples=ev.samples,
            limit=self.config.limit,
        )

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        return [("imports", self.runs(wildcards).reader)]


class ImportValues(ImportRun):
    """The values that another harness has given to the responses of its runs."""

    name = "import_values"

    def jobs(self) -> Iterable[Run]:
        return self.experiment.valued

    def spec(self, wildcards: Any) -> Strict:
        ev = self.config.evals[wildcards.eval]
        return values.Spec(
            **dict(super().spec(wildcards)),
            metrics={metric: (self.runs(wildcards).metrics or {}).get(metric, metric) for metric in ev.metrics},
            primary=ev.primary,
        )


class Judge(OfRuns):
    """Judges' answers. A judge is an arm like any other, at the first seed. Its questions are in the spec, and the code
    of the scores does not count: when a score reads the answers in a new way, no question is asked again."""

    name = "judge"

    def jobs(self) -> Iterable[Run]:
        return self.experiment.judged

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        judge = str(self.config.evals[wildcards.eval].judge)
        others = graph.of_scores(self.config, wildcards.eval)
        return {
            "manifests": self.experiment.chain(judge, self.config.seeds[0]),
            "generations": self.responses(wildcards),
            "dataset": self.dataset(wildcards),
            "others": self.experiment.files(others, int(wildcards.seed))["runs"],
        }

    def spec(self, wildcards: Any) -> judging.Spec:
        ev = self.config.evals[wildcards.eval]
        return judging.Spec(
            arm=wildcards.arm,
            seed=int(wildcards.seed),
            eval=wildcards.eval,
            judge=str(ev.judge),
            questions={
                score: judging.ScoreQuestions(
                    **questions,
                    contexts=self._read_by(score, wildcards.arm),
                    against_contexts=self._read_by(score, questions["against"][0]) if questions["against"] else [],
                )
                for score, questions in ev.questions().items()
            },
            others=list(graph.of_scores(self.config, wildcards.eval).runs),
            policy=policy_of(self.config, str(ev.judge), applied=False),
            limit=self.config.limit,
        )

    def _read_by(self, score: str, arm: str) -> list[Plug]:
        """The contexts that find the answer in an arm's response; none if the judge is shown all of the response."""
        whole = plugins.load("scores", score).READS == "response"
        return [] if whole else [plug(ref) for ref in self.config.arms[arm].apply.context]

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        questions = self.spec(wildcards).questions.values()
        contexts = [context.name for asked in questions for context in (*asked.contexts, *asked.against_contexts)]
        return [*graph.asked_with(self.config, self.arm(wildcards)), *(("contexts", name) for name in contexts)]

    def arm(self, wildcards: Any) -> str:
        return str(self.config.evals[wildcards.eval].judge)


class Score(OfRuns):
    name = "score"

    def jobs(self) -> Iterable[Run]:
        return self.experiment.scored

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        run = {"arm": wildcards.arm, "seed": wildcards.seed, "eval": wildcards.eval}
        judged = self.config.evals[wildcards.eval].judge
        return {
            "judgements": [self.experiment.path("judge", "judgements", **run)] if judged else [],
            "generations": self.responses(wildcards),
            "dataset": self.dataset(wildcards),
        }

    def spec(self, wildcards: Any) -> score_run.Spec:
        score, *describe = map(plug, self.config.evals[wildcards.eval].scores)
        return score_run.Spec(
            arm=wildcards.arm,
            seed=int(wildcards.seed),
            eval=wildcards.eval,
            score=score,
            describe=describe,
            contexts=[plug(ref) for ref in self.config.arms[wildcards.arm].apply.context],
            limit=self.config.limit,
        )

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        contexts = [("contexts", ref.name) for ref in self.config.arms[wildcards.arm].apply.context]
        return [*(("scores", ref.name) for ref in self.config.evals[wildcards.eval].scores), *contexts]


JOBS = (Generate, ImportRun, ImportValues, Judge, Score)
