"""The inputs that a plug-in declares in `inputs`, as its job hands them over.

A plug-in declares datasets, arms and runs by name (`plugins.Inputs`). The DAG makes the files of these names inputs of
the rule, and writes the names, and the arms' manifests, into the job's spec (`Named`). `read` joins names and files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from imprint.runtime.plugins import Strict
from imprint.tables import dataset_rows


class Named(Strict):
    """Names of datasets, in the order of the rule's files; arm -> manifests of its weights; (arm, eval) of runs, in the
    order of the rule's files."""

    datasets: list[str] = Field([])
    arms: dict[str, list[str]] = Field({})
    runs: list[tuple[str, str]] = Field([])

    def manifests(self) -> list[Path]:
        """The manifests of all arms."""
        return [Path(path) for chain in self.arms.values() for path in chain]


@dataclass(frozen=True)
class Read:
    """The declared inputs: the rows of each dataset, the manifests of each arm's chain (the last one lies in the folder
    of the arm's artifact), and the generations file of each run (arm, eval)."""

    datasets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    arms: dict[str, list[Path]] = field(default_factory=dict)
    runs: dict[tuple[str, str], Path] = field(default_factory=dict)


def read(
    named: Named, datasets: Iterable[Path], runs: Iterable[Path], limit: int | None, whole: Collection[str] = ()
) -> Read:
    """The inputs of a job; `limit` caps the rows of each dataset but those in `whole`."""
    paths = zip(named.datasets, datasets, strict=True)
    return Read(
        {name: dataset_rows.read(path, None if name in whole else limit) for name, path in paths},
        {name: [Path(path) for path in chain] for name, chain in named.arms.items()},
        {(arm, ev): path for (arm, ev), path in zip(named.runs, runs, strict=True)},
    )
