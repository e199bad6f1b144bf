"""Vectors in a GPU's memory. The vectors of a block are stacked, so that a merge and the inner products are one call of
the library each, whatever the number of vectors. A GPU would wait longer for calls than for the memory."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from imprint.composition.vectors import Part, Pool

GPU_SHARE = 0.5
"""The share of a GPU's free memory that stacks may take. Vectors of other blocks are read from disk in each step."""
WIDTH = 4096
"""The most elements in a chunk. A block is a batch of chunks, which the GPU works on beside each other."""


class Stack:
    """The start and the vectors of a block, or of a part of it, in the number format of the model's weights. Their
    differences are taken in fp32 and rounded once."""

    def __init__(self, pool: Pool, block: str, part: Part, like: torch.Tensor) -> None:
        """`like` has the device and the number format."""
        indices = [i for i, vector in enumerate(pool.vectors) if vector.touches(block)]
        size = part.span.stop - part.span.start
        width = math.gcd(size, WIDTH)
        self.start = pool.start.read(block, part=part).to(like).view(-1, 1, width)
        self.deltas = torch.empty(size // width, len(indices), width, device=like.device, dtype=like.dtype)
        """[chunk, vector, element]"""
        for place, i in enumerate(indices):
            self.deltas[:, place] = pool.vectors[i].delta(block).view(-1)[part.span].to(like).view(-1, width)
        self.indices = torch.tensor(indices, device=like.device)
        """The places of these vectors in the pool."""

    def sum(self, coefficients: torch.Tensor, out: torch.Tensor) -> None:
        """Write start + sum of coefficient x vector into `out`, which is contiguous. `coefficients` are the pool's,
        [vector]."""
        chunks, vectors, _ = self.deltas.shape
        factors = coefficients[self.indices].to(self.deltas).expand(chunks, 1, vectors)
        torch.baddbmm(self.start, factors, self.deltas, out=out.view(self.start.shape))

    def products(self, gradient: torch.Tensor, count: int) -> torch.Tensor:
        """The inner products of the gradient with the pool's `count` vectors, fp64; 0 for those that do not touch the
        block."""
        chunks, _, width = self.deltas.shape
        of_chunks = torch.bmm(self.deltas, gradient.reshape(chunks, width, 1))
        products = torch.zeros(count, dtype=torch.float64, device=gradient.device)
        products[self.indices] = of_chunks.double().sum((0, 2))
        return products


def stacks(pool: Pool, parts: Mapping[str, Part], weights: Mapping[str, torch.Tensor], room: float) -> dict[str, Stack]:
    """Stacks of blocks that a dense vector touches, as many as fit into `room` bytes. `weights` are the model's."""
    made = {}
    for block, weight in weights.items():
        touching = [vector for vector in pool.vectors if vector.touches(block)]
        elements = parts[block].span.stop - parts[block].span.start
        size = elements * weight.element_size() * (1 + len(touching))
        if 0 < size <= room and any(vector.dense for vector in touching):
            made[block] = Stack(pool, block, parts[block], weight)
            room -= size
    return made


def room(device: torch.device) -> float:
    """The bytes that stacks may take on a device. On a CPU vectors are not stacked: they stay in the files' cache."""
    return GPU_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0.0
