"""Trackers: what shows the curves of a fit while it runs. A tracker gets the values of the table `curves` as they come,
and decides nothing. Its errors end no fit (`runtime/tracking.py`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from imprint.runtime import plugins


class Writer(Protocol):
    """A tracker at work on one fit."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of a step: quantity -> number. Steps come in order, but for quantities that a fit knows only
        at its end: they come once more from the first step on."""

    def close(self) -> None:
        """Write what is not written yet."""


class Tracker(plugins.Contract):
    """What a tracker module defines. It uses no network, writes into the folder that it is given alone, and draws from
    no generator of random numbers that a fit uses."""

    Settings = plugins.Strict  # the config names a tracker without keys

    PACKAGE = ""
    """The Python package that the tracker needs beside those of the project, by the name that pip and `import` share.
    A config whose tracker lacks it is refused."""

    @staticmethod
    @abstractmethod
    def start(folder: Path) -> Writer:
        """Begin with the curves of one fit. What an earlier attempt has left in `folder` counts no more: a fit that
        goes on after a kill adds its earlier steps again."""


CONTRACT = Tracker
