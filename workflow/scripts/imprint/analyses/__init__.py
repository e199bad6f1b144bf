"""Analyses: functions of arms' weights to tidy rows. A module says in `inputs` which arms it reads, so that an analysis
is made anew when one of them is, and in each row's `null` what there would be if there were nothing to find."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imprint import plugins, tables


@dataclass(frozen=True)
class Analysis:
    """One analysis at one seed. `arms`: name -> chain of manifests (see `imprint.models.load`)."""

    seed: int
    settings: Any
    arms: dict[str, list[Path]]


def run(spec: dict[str, Any], out: Path) -> None:
    """Write the rows of one analysis, all seeds. A module yields rows without `analysis` and `seed`."""
    settings = plugins.settings("analyses", spec["plugin"], spec["settings"])
    rows = plugins.load("analyses", spec["plugin"]).rows

    def found() -> Iterator[dict[str, Any]]:
        for seed, arms in spec["arms"]:
            chains = {name: [Path(path) for path in chain] for name, chain in arms.items()}
            for row in rows(Analysis(seed, settings, chains)):
                yield {"analysis": spec["analysis"], "seed": seed, **row}

    tables.write(out, "analyses", found())
