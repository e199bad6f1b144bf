"""Artifacts: what a fit makes. The `kind` in a manifest is the name of a module in this package. An arm's weights are
its root model's, changed in turn by the artifacts of the arm's fitted ancestors, as far as they count as weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from imprint.runtime import plugins


class Factors(NamedTuple):
    """An adapter's change of a block: scale * b @ a, with fp32 tensors b [out, rank] and a [rank, in]."""

    scale: float
    b: Any
    a: Any

    def on(self, device: Any) -> Factors:
        """The same factors on `device`."""
        return Factors(self.scale, self.b.to(device), self.a.to(device))

    def of_rows(self, rows: slice) -> Factors:
        """The factors of some rows of the block."""
        return self._replace(b=self.b[rows])

    def add_to(self, matrix: Any, coefficient: float = 1.0) -> None:
        """Add the change, times a coefficient, to a matrix on the factors' device."""
        matrix.addmm_(self.b, self.a, alpha=self.scale * coefficient)


class Artifact(plugins.Contract):
    """What an artifact defines. `folder` is the manifest's folder. Its subfolder `weights` holds the artifact's files,
    and the manifest names these files with their sha256."""

    Settings = plugins.Strict  # fits make artifacts, so the config has no keys for them

    WEIGHTS = True
    """Whether the artifact counts as weights, so that children of its arm start from it."""
    REPLACES = False
    """Whether the artifact holds all weights, so that nothing before it in the chain matters."""

    @staticmethod
    def install(model: Any, folder: Path, dtype: Any) -> Any:
        """The model with the artifact in it. It computes the weights that it changes in fp32, and casts them to the
        torch `dtype`. An artifact that REPLACES is what the model was read from, and returns the model unchanged. Only
        kinds that count as weights define it."""
        raise NotImplementedError

    @staticmethod
    def save(model: Any, folder: Path) -> None:
        """Write the artifact of a trained `model`. Only kinds that gradient fits make define it."""
        raise NotImplementedError

    @staticmethod
    def factors(folder: Path, blocks: Any, arm: str) -> Iterator[tuple[str, Factors]]:
        """(block, factors) of every block that the artifact changes, for task vectors. Only kinds of weights that do
        not replace define it. `blocks` are the root model's (`imprint.composition.vectors.Blocks`)."""
        raise NotImplementedError


CONTRACT = Artifact
