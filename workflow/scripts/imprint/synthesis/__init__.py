"""Synthesis: datasets made from other datasets, from artifacts and from runs, by a teacher arm where one is needed."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

from imprint.runtime import plugins
from imprint.tables.inputs import Read


class SynthesisedRows(NamedTuple):
    """The rows of a new dataset, and a record of each attempt to make one (schema `synthesis`)."""

    rows: list[dict[str, Any]]
    attempts: list[dict[str, Any]]


class Synthesiser(plugins.Contract):
    """What a synthesiser defines."""

    @staticmethod
    def teacher(settings: Any) -> str | None:
        """The arm that the synthesiser asks, or None. The job loads its weights."""
        return None

    @staticmethod
    def left_out(settings: Any) -> tuple[str, ...]:
        """The datasets that it reads to leave their rows out. They are read without a `limit`, and no row of the new
        dataset comes from them, so it leaks nothing of theirs."""
        return ()

    @staticmethod
    @abstractmethod
    def rows(settings: Any, inputs: Read, ask: Any) -> SynthesisedRows:
        """The rows of the dataset, and the attempts. `ask` puts requests to the teacher (`imprint.policies.teacher`);
        it is None without a teacher."""


CONTRACT = Synthesiser
