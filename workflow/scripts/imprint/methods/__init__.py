"""Methods: how an arm gets its weights. A fit reads three things only: datasets, artifacts of other arms, and runs of
other arms; a method says which through `inputs`, so every dependence is an edge of the DAG."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple


class Inputs(NamedTuple):
    """What a fit or a synthesiser reads beside its parent: names of datasets and arms, (arm, eval) pairs whose
    generations it uses, and (kind, name) of the plug-ins that it runs, such as the scores that serve as rewards."""

    datasets: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    runs: tuple[tuple[str, str], ...] = ()
    plugins: tuple[tuple[str, str], ...] = ()


class Context(NamedTuple):
    """A context plug-in with its settings."""

    module: ModuleType
    settings: Any


@dataclass(frozen=True)
class Fit:
    """One training job. Chains of manifests name weights: the root model's manifest, then those of the fitted
    ancestors in order (see `imprint.models.load`). `folder` survives a kill and holds checkpoints; the results go
    under `out`: `weights/` and `curves.parquet`."""

    arm: str
    seed: int
    settings: Any
    context: Context
    manifests: list[Path]
    folder: Path
    out: Path
    threads: int
    device: str = "cpu"
    dtype: str = "bfloat16"
    datasets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    arms: dict[str, list[Path]] = field(default_factory=dict)
    runs: dict[tuple[str, str], Path] = field(default_factory=dict)
