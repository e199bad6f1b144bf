"""Writing composed weights. Blocks are computed one at a time, so that only one is in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from imprint.artifacts import full
from imprint.composition.vectors import Pool


def write(out: Path, pool: Pool, compose: Callable[[str], torch.Tensor]) -> None:
    """Write weights of the pool's architecture as the artifact in folder `out`. `compose` returns a block by its name,
    fp32 in its shape. Tensors that are no parameters, such as buffers, are copied from the start."""
    weights, blocks = pool.start.weights, pool.blocks
    names = {blocks.alias.get(name, name): name for name in weights.names}
    shapes = []
    for block, name in names.items():
        stored = weights.read(name)
        shapes.append((block, tuple(stored.shape), torch.float32 if block in blocks.shapes else stored.dtype))
    with torch.no_grad():
        full.write(out, shapes, lambda block: compose(block) if block in blocks.shapes else weights.read(names[block]))
