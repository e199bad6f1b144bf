"""What the coefficients of a block are for: one for all of its elements, or one for each of K random parts of them (the
paper's aTLAS x K).

Either adds task vectors to a sum and takes the inner products of a gradient with them, of dense vectors piece by piece
(`composition/vectors.py`), of an adapter's from its factors. A vector comes with its coefficients, one a part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from imprint.artifacts import Factors
from imprint.composition import vectors
from imprint.composition.vectors import Piece, Vector, generator

Counted = tuple[Vector, torch.Tensor]
"""A vector and its coefficients in a block."""


class Whole:
    """One coefficient for all elements. Nothing of an adapter is multiplied out."""

    def share(self, dense: Sequence[Counted]) -> float:
        """The multiple of the root that is taken off a sum, since `add` adds arms' elements and not their differences:
        that takes half the passes, at an error of a few units in the last place of the sum."""
        return sum(float(x) for vector, x in dense if vector.stored)

    def add(self, piece: Piece, dense: Sequence[Counted], out: torch.Tensor) -> None:
        """Add coefficient x vector to a piece of a sum."""
        for vector, x in dense:
            out.add_(vector.elements(piece), alpha=float(x))

    def add_low(self, factors: Factors, x: torch.Tensor, out: torch.Tensor) -> None:
        """Add coefficient x adapter to the sum of a block."""
        factors.add_to(out, float(x))

    def inner(self, piece: Piece, dense: Sequence[Vector], gradient: torch.Tensor) -> Iterator[torch.Tensor]:
        """The inner product of a piece of the gradient, fp32, with each vector."""
        for vector in dense:
            yield torch.dot(vector.difference(piece), gradient)

    def inner_low(self, factors: Factors, gradient: torch.Tensor) -> Iterator[torch.Tensor]:
        """Terms of the inner product of a block's gradient, fp32, with an adapter: < G, s B A > = s < B^T G, A >."""
        scale, b, a = factors
        yield scale * torch.dot((b.T @ gradient).view(-1), a.reshape(-1))


class Parts:
    """One coefficient for each random part of a block's elements."""

    def __init__(self, seed: int, block: str, parts: int) -> None:
        self.seed, self.block, self.parts = seed, block, parts

    def share(self, dense: Sequence[Counted]) -> float:
        """Nothing is taken off: differences are added."""
        return 0.0

    def add(self, piece: Piece, dense: Sequence[Counted], out: torch.Tensor) -> None:
        """Add coefficient x vector to a piece of a sum, element by element."""
        index = self._index(piece.start, len(out), out.device)
        for vector, x in dense:
            out.addcmul_(vector.difference(piece), x.to(out.device)[index])

    def add_low(self, factors: Factors, x: torch.Tensor, out: torch.Tensor) -> None:
        """Add coefficient x adapter to the sum of a block, some rows at a time."""
        scale, b, a = factors
        for rows, index in self._rows(out):
            out[rows].addcmul_(b[rows] @ a, x.to(out.device)[index], value=scale)

    def inner(self, piece: Piece, dense: Sequence[Vector], gradient: torch.Tensor) -> Iterator[torch.Tensor]:
        """The inner products of a piece of the gradient, fp32, with each vector, one a part."""
        index = self._index(piece.start, len(gradient), gradient.device)
        for vector in dense:
            yield self._by_part(vector.difference(piece), gradient, index)

    def inner_low(self, factors: Factors, gradient: torch.Tensor) -> Iterator[torch.Tensor]:
        """Terms of the inner products of a block's gradient, fp32, with an adapter, one a part."""
        scale, b, a = factors
        for rows, index in self._rows(gradient):
            change = (b[rows] @ a).view(-1)
            yield scale * self._by_part(change, gradient[rows].reshape(-1), index.reshape(-1))

    def _index(self, start: int, size: int, device: Any) -> torch.Tensor:
        return partition(self.seed, self.block, start, size, self.parts).to(device)

    def _rows(self, matrix: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Slices of a matrix's rows with the part of each element."""
        index = self._index(0, matrix.numel(), matrix.device).view(matrix.shape)
        step = max(1, vectors.CHUNK // matrix.shape[1])
        for row in range(0, len(matrix), step):
            yield slice(row, row + step), index[row : row + step]

    def _by_part(self, change: torch.Tensor, gradient: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return torch.bincount(index, weights=(change * gradient).double(), minlength=self.parts)


def partition(seed: int, block: str, start: int, size: int, parts: int) -> torch.Tensor:
    """The part (0 to parts - 1) of each of `size` elements of a block from `start` on, a multiple of CHUNK: drawn anew
    from seed, name and position whenever it is needed, so that no index is stored."""
    drawn = [
        torch.randint(parts, (vectors.CHUNK,), generator=generator("partition", seed, block, at))
        for at in range(start, start + size, vectors.CHUNK)
    ]
    return torch.cat(drawn)[:size]
