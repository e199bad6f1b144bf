"""TensorBoard, which shows curves in a browser: `.venv/bin/tensorboard --logdir results/arms`. The package is installed
on its own: `.venv/bin/pip install -c requirements.lock tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imprint.trackers import Writer

PACKAGE = "tensorboard"
SECONDS = 10
"""The longest time for which steps stay in memory alone."""


class Events:
    """The event files of one fit."""

    def __init__(self, events: Any) -> None:
        self.events = events

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.events.add_scalar(name, value, step)

    def close(self) -> None:
        self.events.close()


def start(folder: Path) -> Writer:
    from torch.utils.tensorboard import SummaryWriter

    # Files of an earlier attempt stay, and TensorBoard forgets their steps. If they were deleted, a TensorBoard that
    # had read them would not go on to the new file.
    return Events(SummaryWriter(str(folder), purge_step=0, flush_secs=SECONDS))  # type: ignore[no-untyped-call]
