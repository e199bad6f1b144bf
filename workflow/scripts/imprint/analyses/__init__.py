"""Analyses: functions from arms' weights, runs or datasets to tidy rows. `inputs` of a module declares what it reads,
so an analysis is made anew when one of these is. `asks` names the arm that an analysis asks or whose activations it
records; its job then runs a model. `null` of a row is the value to expect if there is no effect."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imprint.runtime import plugins
from imprint.tables.inputs import Read

if TYPE_CHECKING:
    from imprint.policies.policy import Policy


@dataclass(frozen=True)
class Analysis:
    """One analysis at one seed."""

    seed: int
    settings: Any
    inputs: Read
    policy: Policy | None = None
    """The arm that `asks` names, with its `apply`, at this seed; None if it names none."""


class Analyser(plugins.Contract):
    """What an analysis defines."""

    @staticmethod
    def asks(settings: Any) -> str | None:
        """The arm whose policy `rows` gets; None if it needs no model."""
        return None

    @staticmethod
    @abstractmethod
    def rows(job: Analysis) -> Iterator[dict[str, Any]]:
        """Rows of the table `analyses`, without `analysis` and `seed`."""


CONTRACT = Analyser
