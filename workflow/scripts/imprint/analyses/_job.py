"""The analysis job: writes the rows of one analysis that runs no model, all seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprint.analyses import Analysis
from imprint.runtime import parquet, plugins
from imprint.runtime.plugins import Strict
from imprint.tables.inputs import Named, Read, read

if TYPE_CHECKING:
    from imprint.policies.policy import Policy


class Spec(Strict):
    """What an analysis job makes. `inputs` has (seed, inputs at that seed)."""

    analysis: str
    plugin: str
    settings: dict[str, Any]
    inputs: list[tuple[int, Named]]
    limit: int | None


def run(spec: Spec, datasets: list[Path], runs: list[Path], out: Path) -> None:
    """Write the rows of one analysis, all seeds. All seeds share `datasets`; `runs` has the files
    of the first seed, then those of the next."""
    write(spec, datasets, runs, out, lambda number, inputs: None)


def write(
    spec: Spec, datasets: list[Path], runs: list[Path], out: Path, start: Callable[[int, Read], Policy | None]
) -> None:
    """Write the rows of one analysis. `start` gives the policy of the seed with a number, counted from 0, for the
    inputs at that seed."""
    settings = plugins.settings("analyses", spec.plugin, spec.settings)
    rows = plugins.load("analyses", spec.plugin).rows

    def all_rows() -> Iterator[dict[str, Any]]:
        for number, (seed, named) in enumerate(spec.inputs):
            of_seed = runs[number * len(named.runs) : (number + 1) * len(named.runs)]
            inputs = read(named, datasets, of_seed, spec.limit)
            for row in rows(Analysis(seed, settings, inputs, start(number, inputs))):
                yield {"analysis": spec.analysis, "seed": seed, **row}

    parquet.write(out, "analyses", all_rows())
