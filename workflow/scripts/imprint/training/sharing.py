"""How many ranks (`runtime/ranks.py`) can share a fit."""

from __future__ import annotations

from typing import NamedTuple

from imprint.runtime import gpu_memory
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug


class Shared(NamedTuple):
    """What the ranks of a fit share equally: a `number` of `parts` of an update, which follows from `settings`."""

    number: int
    parts: str
    settings: str


def check(arm: str, method: Plug, size: int, nodes: int = 1) -> None:
    """Raise ImprintError for a fit that cannot run on `size` ranks, which are on so many `nodes`."""
    if size <= 1:
        return
    module, settings = method.open("methods")
    shared = module.shared(settings)
    found = f"arm '{arm}': its fit has {size} GPUs ({gpu_memory.asked(size, nodes)}, of the arm or of the profile)"
    if shared is None:
        raise ImprintError(f"{found}, and a fit by {method.name} runs on one; write `resources: {{gpu: 1}}` on the arm")
    if shared.number % size:
        fewer = max(number for number in range(1, size) if shared.number % number == 0)
        raise ImprintError(
            f"{found}, which cannot share an update equally: its {shared.parts} are {shared.number} "
            f"({shared.settings}); write {fewer} GPU(s){' in all' if nodes > 1 else ''}, "
            f"or settings with which they are a multiple of {size}"
        )
