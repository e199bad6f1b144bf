"""The tracker of a fit, held so that it cannot harm the fit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imprint.runtime import plugins
from imprint.runtime.errors import shown

FOLDER = "track"
"""Beside a fit's manifest: what its tracker writes."""


class Tracking:
    """Tells the tracker of one fit (module in imprint/trackers; "" for none) the values of each step. After the first
    error, which it names on stderr, it tells no more. It begins with the first values, in `folder`."""

    def __init__(self, tracker: str = "", folder: Path = Path(FOLDER)) -> None:
        self.tracker, self.folder = tracker, folder
        self._writer: Any = None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Tell the values of a step, quantity -> number."""
        self._try(lambda: self._started().add(step, values))

    def close(self) -> None:
        """Let the tracker write what it has not written yet."""
        if self._writer is not None:
            self._try(self._writer.close)

    def _started(self) -> Any:
        if self._writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._writer = plugins.load("trackers", self.tracker).start(self.folder)
        return self._writer

    def _try(self, do: Callable[[], None]) -> None:
        if not self.tracker:
            return
        try:
            do()
        except Exception as error:  # of any kind: the tracker is another project's code
            said = f"{type(error).__name__}: {error}"
            print(
                shown(
                    f"imprint: warning: track: '{self.tracker}' failed in {self.folder} ({said:.500}); the fit goes on "
                    "without it, and curves.parquet will have every step"
                ),
                file=sys.stderr,
                flush=True,
            )
            self.tracker = ""
