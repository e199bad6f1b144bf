"""Vectors in a GPU's memory. The differences of a block are stacked, so that a merge and the inner products are one
call of the library each, whatever the number of vectors. A GPU would wait longer for calls than for the memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch

from imprint.composition.vectors import Part, Pool, pieces

GPU_SHARE = 0.5
"""The share of a GPU's free memory that stacks may take. Vectors of other blocks are read from disk in each step."""
WIDTH = 1 << 15
"""The most elements in a chunk. A block is a batch of chunks, which the GPU works on beside each other. The largest
embeddings have fewer than 65,536 of them, a number that libraries for GPUs once could not exceed."""


class Stack:
    """The start of a block, or of a part of it, and the differences of its dense vectors, in the number format of the
    model's weights. Differences are taken in fp32 and rounded once."""

    def __init__(self, pool: Pool, block: str, part: Part, like: torch.Tensor) -> None:
        """`like` has the device and the number format."""
        dense = [i for i, vector in enumerate(pool.vectors) if vector.dense and vector.touches(block)]
        size = part.span.stop - part.span.start
        width = math.gcd(size, WIDTH)
        self.start = pool.start.read(block, part=part).to(like).view(-1, 1, width)
        self.differences = torch.empty(size // width, len(dense), width, device=like.device, dtype=like.dtype)
        """[chunk, vector, element]"""
        flat = torch.empty(size, device=like.device, dtype=like.dtype)
        for stacked, i in enumerate(dense):
            for piece in pieces(block, pool.root, like.device, part.span):
                flat[part.within(piece.span)] = pool.vectors[i].difference(piece).to(like)
            self.differences[:, stacked] = flat.view(-1, width)
        self.places = torch.zeros(len(pool.vectors), len(dense), dtype=torch.float64, device=like.device)
        """[vector of the pool, vector of the stack]: 1 where both are the same."""
        self.places[dense, range(len(dense))] = 1.0

    def sum(self, coefficients: torch.Tensor, out: torch.Tensor) -> None:
        """Write start + sum of coefficient x vector into `out`, which is contiguous. `coefficients` are the pool's,
        [vector]."""
        chunks, vectors, _ = self.differences.shape
        factors = (coefficients.double() @ self.places).to(self.differences).expand(chunks, 1, vectors)
        torch.baddbmm(self.start, factors, self.differences, out=out.view(self.start.shape))

    def products(self, gradient: torch.Tensor) -> torch.Tensor:
        """The inner products of the gradient with the pool's vectors, fp64; 0 for those that are not in the stack."""
        chunks, _, width = self.differences.shape
        of_chunks = torch.bmm(self.differences, gradient.reshape(chunks, width, 1))
        return self.places @ of_chunks.double().sum((0, 2))


def build(
    pool: Pool, blocks: Iterable[str], parts: Mapping[str, Part], weights: Mapping[str, torch.Tensor], room: float
) -> dict[str, Stack]:
    """Stacks of blocks that a dense vector touches, as many as fit into `room` bytes. `weights` are the model's."""
    made = {}
    for block in blocks:
        dense = sum(vector.dense and vector.touches(block) for vector in pool.vectors)
        elements = parts[block].span.stop - parts[block].span.start
        size = elements * weights[block].element_size() * (1 + dense)
        if dense and 0 < size <= room:
            made[block] = Stack(pool, block, parts[block], weights[block])
            room -= size
    return made


def room(device: torch.device) -> float:
    """The bytes that stacks may take on a device. On a CPU vectors are not stacked: they stay in the files' cache."""
    if device.type != "cuda":
        return 0.0
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return GPU_SHARE * (torch.cuda.mem_get_info(device)[0] + unused)
