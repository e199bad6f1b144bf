"""Analyses: functions from arms' weights, runs or datasets to tidy rows. `inputs` of a module declares what it reads,
so an analysis is made anew when one of these is. `null` of a row is the value to expect if there is no effect."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from imprint.runtime import plugins
from imprint.tables.inputs import Read


@dataclass(frozen=True)
class Analysis:
    """One analysis at one seed."""

    seed: int
    settings: Any
    inputs: Read


class Analyser(plugins.Contract):
    """What an analysis defines."""

    @staticmethod
    @abstractmethod
    def rows(job: Analysis) -> Iterator[dict[str, Any]]:
        """Rows of the table `analyses`, without `analysis` and `seed`."""


CONTRACT = Analyser
