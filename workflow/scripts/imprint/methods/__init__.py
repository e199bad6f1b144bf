"""Methods: how an arm gets its weights, or another artifact. A fit reads only datasets, artifacts of other arms, and
runs of other arms. A method names them in `inputs`, so that every dependence is an edge of the DAG."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imprint.runtime import plugins
from imprint.runtime.gpu_memory import Holds
from imprint.runtime.plugins import Plug
from imprint.runtime.ranks import Ranks
from imprint.runtime.tracking import Tracking
from imprint.tables.inputs import Read
from imprint.training.sharing import Shared


@dataclass(frozen=True)
class Fit:
    """One fit at work. `manifests` is the chain of the weights that it starts from: the manifests of the root model and
    of the fitted ancestors, in order (`imprint.models.chains`). `folder` survives a kill and holds checkpoints. `out`
    gets the results: the artifact's files and `curves.parquet`. The fit trains under `contexts`. Its
    curves go through `imprint.training.curves`, and from there to `tracking` too. `ranks` is the place of this process
    among those that share the fit; only rank 0's `out` is kept."""

    arm: str
    seed: int
    settings: Any
    contexts: list[Plug]
    manifests: list[Path]
    folder: Path
    out: Path
    threads: int
    device: str = "cpu"
    dtype: str = "bfloat16"
    inputs: Read = field(default_factory=Read)
    tracking: Tracking = field(default_factory=Tracking)
    ranks: Ranks = field(default_factory=Ranks)


class Method(plugins.Contract):
    """What a method defines."""

    TRANSDUCTIVE = False
    """Whether the method adapts to prompts that may be an eval's. Its arms must say so in the config."""

    @staticmethod
    @abstractmethod
    def fit(job: Fit) -> dict[str, Any]:
        """Make the artifact under `job.out`, going on from the checkpoints in `job.folder`. Returns the metrics for the
        manifest."""

    @staticmethod
    def makes(settings: Any) -> str:
        """The kind of artifact that the method makes (module in imprint/artifacts)."""
        return "full"

    @staticmethod
    def draws(settings: Any) -> bool:
        """Whether the fit depends on the seed itself. A fit that does not is made once, unless what it reads depends on
        the seed."""
        return True

    @staticmethod
    def holds(settings: Any, ranks: int) -> Holds | None:
        """What each of a fit's `ranks` keeps on its device beside the weights, from which `runtime.gpu_memory` reckons
        the memory that it needs. None says nothing: the fit's memory is not reckoned, and no GPU is too small for
        it."""
        return None

    @staticmethod
    def shared(settings: Any) -> Shared | None:
        """What the ranks of a fit share equally. None says that the fit runs in one process, so that an arm with
        several GPUs is refused."""
        return None


CONTRACT = Method
