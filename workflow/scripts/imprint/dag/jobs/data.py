"""The stages that fetch models and files, and that read, generate or synthesise datasets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from imprint.config import catalog, graph, hub
from imprint.dag.jobs import Jobs
from imprint.dag.policies import policy_of
from imprint.datasets import _job as preparing
from imprint.engines import _job as reaching
from imprint.models import folders, sources
from imprint.synthesis import _job as synthesis
from imprint.synthesis import _rearrange as rearranging


class OfModel(NamedTuple):
    """The name of a model's folder."""

    model: str


class OfFile(NamedTuple):
    """A file of a catalog entry."""

    entry: str
    file: str


class OfSplit(NamedTuple):
    """The name of the folder of a split of a dataset repository."""

    split: str


class OfDataset(NamedTuple):
    """The name of a dataset."""

    dataset: str


class FetchModel(Jobs):
    name = "fetch_model"

    def jobs(self) -> Iterable[OfModel]:
        return [OfModel(key) for key, name in self.experiment.models.items() if not self.config.models[name].openai]

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        """The files of a model with `path`, so that a change of its weights reruns the job, and its chat template."""
        model = self.config.models[self.experiment.models[wildcards.model]]
        return {
            "files": [str(file) for file in folders.files(model.path)] if model.path else [],
            "template": [model.chat_template] if model.chat_template else [],
        }

    def spec(self, wildcards: Any) -> sources.Spec:
        return sources.Spec(**self.experiment.model_spec(self.experiment.models[wildcards.model]))


class ReachModel(Jobs):
    """Models on servers. They have no files, so their manifest says where they are."""

    name = "reach_model"

    def jobs(self) -> Iterable[OfModel]:
        return [OfModel(key) for key, name in self.experiment.models.items() if self.config.models[name].openai]

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        return {}

    def spec(self, wildcards: Any) -> reaching.Spec:
        return reaching.Spec(**self.experiment.model_spec(self.experiment.models[wildcards.model]))


class FetchData(Jobs):
    name = "fetch_data"

    def jobs(self) -> Iterable[OfFile]:
        entries = dict.fromkeys(entry for dataset in self.config.datasets.values() if (entry := dataset.entry()))
        return [OfFile(entry, file) for entry in entries for file in catalog.load()[entry].files]

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        return {}

    def spec(self, wildcards: Any) -> catalog.Spec:
        """The file without its mirror, which does not enter its identity."""
        file = catalog.load()[wildcards.entry].files[wildcards.file]
        return catalog.Spec(**file.model_dump(exclude={"mirror"}))


class FetchHub(Jobs):
    name = "fetch_hub"

    def jobs(self) -> Iterable[OfSplit]:
        return map(OfSplit, self._splits())

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        return {}

    def spec(self, wildcards: Any) -> hub.Spec:
        return self._splits()[wildcards.split]

    def _splits(self) -> dict[str, hub.Spec]:
        splits = [dataset.split for dataset in self.config.datasets.values() if dataset.split]
        return {split.folder: split for split in splits}


class Prepare(Jobs):
    name = "prepare"

    def jobs(self) -> Iterable[OfDataset]:
        return [OfDataset(name) for name, dataset in self.config.datasets.items() if dataset.source != "synth"]

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        """The files from which a dataset is read or generated."""
        dataset = self.config.datasets[wildcards.dataset]
        if (path := dataset.path()) is not None:
            return {"files": [str(path)]}
        if dataset.split:
            return {"files": [self.experiment.path("fetch_hub", "manifest", split=dataset.split.folder)]}
        if (entry := dataset.entry()) is not None:
            return {"files": [f"resources/data/{entry}/{file}" for file in catalog.load()[entry].files]}
        tables = dataset.tables()
        return {"files": sorted(str(path) for path in Path("resources", tables).iterdir()) if tables else []}

    def spec(self, wildcards: Any) -> preparing.Spec:
        dataset = self.config.datasets[wildcards.dataset]
        return preparing.Spec(
            dataset=wildcards.dataset,
            source=dataset.source,
            name=dataset.name,
            plugin=dataset.plugin,
            settings=dataset.settings.model_dump(mode="json"),
        )

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        return [("datasets", self.config.datasets[wildcards.dataset].plugin)]


class Rearrange(Jobs):
    """Datasets that are made from others without a model."""

    name = "rearrange"

    def jobs(self) -> Iterable[OfDataset]:
        return [
            OfDataset(name)
            for name, dataset in self.config.datasets.items()
            if dataset.source == "synth" and bool(dataset.teacher()) == self.stage.runs_model
        ]

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        return dict(self.experiment.files(graph.of_dataset(self.config, wildcards.dataset), self.config.seeds[0]))

    def spec(self, wildcards: Any) -> rearranging.Spec:
        dataset = self.config.datasets[wildcards.dataset]
        return rearranging.Spec(
            dataset=wildcards.dataset,
            plugin=dataset.plugin,
            settings=dataset.settings.model_dump(mode="json"),
            inputs=self.experiment.named(graph.of_dataset(self.config, wildcards.dataset), self.config.seeds[0]),
            limit=self.config.limit,
        )

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        reads = graph.of_dataset(self.config, wildcards.dataset)
        plugin = self.config.datasets[wildcards.dataset].plugin
        return [("synthesis", plugin), *graph.read_with(self.config, reads)]


class Synthesize(Rearrange):
    """Datasets that are made from others with a teacher, at the first seed."""

    name = "synthesize"

    def inputs(self, wildcards: Any) -> dict[str, Any]:
        manifests = self.experiment.chain(self.arm(wildcards), self.config.seeds[0])
        return {"manifests": manifests, **super().inputs(wildcards)}

    def spec(self, wildcards: Any) -> synthesis.Spec:
        policy = policy_of(self.config, self.arm(wildcards), applied=False)
        return synthesis.Spec(**dict(super().spec(wildcards)), teacher=policy)

    def plugins(self, wildcards: Any) -> Iterable[tuple[str, str]]:
        return [*super().plugins(wildcards), *graph.asked_with(self.config, self.arm(wildcards))]

    def arm(self, wildcards: Any) -> str:
        return str(self.config.datasets[wildcards.dataset].teacher())


JOBS = (FetchModel, ReachModel, FetchData, FetchHub, Prepare, Synthesize, Rearrange)
