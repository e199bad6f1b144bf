"""Progress bars on standard error, and so in the job's log."""

from __future__ import annotations

import sys
from typing import Any


def bar(total: int, what: str, *, initial: int = 0, unit: str = "it", hidden: bool = False) -> Any:
    """A tqdm bar that is redrawn at most every five seconds; a context manager."""
    from tqdm import tqdm

    return tqdm(total=total, initial=initial, desc=what, unit=unit, mininterval=5, file=sys.stderr, disable=hidden)
