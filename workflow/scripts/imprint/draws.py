"""Random choices by hash: a choice depends on its own key (such as a seed and a row), and not on a library's version or
on earlier choices."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from imprint.runtime.identity import canonical


def seed_of(*parts: Any) -> int:
    """A seed (63 bits) that is the same for the same `parts`, which are plain data."""
    return int.from_bytes(hashlib.sha256(canonical(parts).encode()).digest()[:8]) >> 1


def order(rows: int, epochs: float, seed: int) -> list[int]:
    """`round(rows * epochs)` row indices (at least one) in training order. Each epoch is a shuffle of its own, by hash,
    so that neither a library's version nor the rows' content can change the order."""
    total, indices = max(1, round(rows * epochs)), list[int]()
    for epoch in range(math.ceil(total / rows)):
        indices += sorted(range(rows), key=lambda row: hashlib.sha256(f"{seed}/{epoch}/{row}".encode()).digest())
    return indices[:total]
