"""The stage that fits arms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from imprint.config import graph
from imprint.dag.experiment import plug
from imprint.dag.jobs import Jobs
from imprint.runtime.plugins import Plug
from imprint.training import launch


class Fitted(NamedTuple):
    """An arm at a seed."""

    arm: str
    seed: int


class Train(Jobs):
    name = "train"

    def jobs(self) -> Iterable[Fitted]:
        return [Fitted(*fit) for fit in self.experiment.fits]

    def methods(self) -> dict[str, list[str]]:
        """Method -> the arms that it fits."""
        fits = [(arm.fit.method, name) for name, arm in self.config.arms.items() if arm.fit]
        return {method: [name for other, name in fits if other == method] for method in sorted({m for m, _ in fits})}

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        """The manifests of the parent's weights, and what the method and the contexts read."""
        seed, arm = int(wildcards.seed), self.config.arms[wildcards.arm]
        model = (
            self.experiment.path("fetch_model", "manifest", model=self.experiment.model_key(str(arm.model)))
            if arm.model
            else ""
        )
        manifests = self.experiment.chain(arm.parent, seed) if arm.parent else [model]
        return {"manifests": manifests, **self.experiment.files(graph.of_fit(self.config, wildcards.arm), seed)}

    def spec(self, wildcards: Any) -> launch.Spec:
        fit = self.config.arms[wildcards.arm].fit
        assert fit is not None
        return launch.Spec(
            arm=wildcards.arm,
            seed=int(wildcards.seed),
            method=Plug(name=fit.method, settings=fit.settings.model_dump(mode="json")),
            contexts=[plug(ref) for ref in fit.context],
            inputs=self.experiment.named(graph.of_fit(self.config, wildcards.arm), int(wildcards.seed)),
            dtype=self.config.engine.dtype,
            limit=self.config.limit,
        )

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        """The method, the contexts, and what loads the arm's weights and inputs. The engine is left out: every engine
        draws from the same distribution, so an edit of its code is not worth a refit, which takes hours of a GPU."""
        fit = self.config.arms[wildcards.arm].fit
        assert fit is not None
        return [
            ("methods", fit.method),
            *(("contexts", ref.name) for ref in fit.context),
            *graph.read_with(self.config, graph.of_fit(self.config, wildcards.arm)),
            *graph.artifact_with(self.config, wildcards.arm),
        ]


JOBS = (Train,)
