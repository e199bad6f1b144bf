"""How the elements of a block share coefficients: the block has a single coefficient, or one for each of K random parts
of its elements (aTLAS x K, arXiv 2407.02880).

Both classes add task vectors, times their coefficients, to a sum, and compute the inner products of a gradient with the
vectors. They read dense vectors piece by piece (`composition/vectors.py`), and adapters as factors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from imprint.artifacts import Factors
from imprint.composition import vectors
from imprint.composition.vectors import Piece, Vector, drawn, generator

Term = tuple[Vector, torch.Tensor]
"""A vector and its coefficients in a block, [part]."""


class Single:
    """One coefficient for all elements of a block. Adapters are never multiplied out."""

    def surplus(self, dense: Sequence[Term]) -> float:
        """How many times the sum must subtract the root's weights after `add_dense`. Instead of coefficient x (arm -
        root), `add_dense` adds coefficient x arm. This halves the passes over memory, and changes the sum by a few
        units in the last place."""
        return sum(float(coefficient) for vector, coefficient in dense if vector.addend_includes_root)

    def add_dense(self, piece: Piece, dense: Sequence[Term], out: torch.Tensor) -> None:
        """Add coefficient x addend of each vector to `out`, which is a piece of a sum."""
        for vector, coefficient in dense:
            out.add_(vector.addend(piece), alpha=float(coefficient))

    def add_factors(self, factors: Factors, coefficient: torch.Tensor, out: torch.Tensor) -> None:
        """Add coefficient x adapter to `out`, the sum of the rows that the factors are of."""
        factors.add_to(out, float(coefficient))

    def inner_dense(self, piece: Piece, dense: Sequence[Vector], gradient: torch.Tensor) -> Iterator[torch.Tensor]:
        """For each vector, the inner product with a piece of the gradient (fp32), a scalar."""
        for vector in dense:
            yield torch.dot(vector.difference(piece), gradient)

    def inner_factors(self, factors: Factors, gradient: torch.Tensor) -> Iterator[torch.Tensor]:
        """Terms of the inner product of an adapter with its rows' gradient G (fp32): <G, s B A> = s <B^T G, A>."""
        scale, b, a = factors
        yield scale * torch.dot((b.T @ gradient).view(-1), a.reshape(-1))


class Partitioned:
    """One coefficient for each random part of a block's elements. Methods of the same name do the same as `Single`'s,
    with coefficients [part] and inner products [part]. `start` is the place in the flat block at which matrices
    begin."""

    def __init__(self, seed: int, block: str, parts: int, start: int = 0) -> None:
        self.seed, self.block, self.parts, self.start = seed, block, parts, start

    def surplus(self, dense: Sequence[Term]) -> float:
        """0, because `add_dense` adds differences from the root."""
        return 0.0

    def add_dense(self, piece: Piece, dense: Sequence[Term], out: torch.Tensor) -> None:
        part_of = self._parts_of(piece.start, len(out), out.device)
        for vector, coefficients in dense:
            out.addcmul_(vector.difference(piece), coefficients.to(out.device)[part_of])

    def add_factors(self, factors: Factors, coefficients: torch.Tensor, out: torch.Tensor) -> None:
        scale, b, a = factors
        for rows, part_of in self._slices(out):
            out[rows].addcmul_(b[rows] @ a, coefficients.to(out.device)[part_of], value=scale)

    def inner_dense(self, piece: Piece, dense: Sequence[Vector], gradient: torch.Tensor) -> Iterator[torch.Tensor]:
        part_of = self._parts_of(piece.start, len(gradient), gradient.device)
        for vector in dense:
            yield self._products(vector.difference(piece), gradient, part_of)

    def inner_factors(self, factors: Factors, gradient: torch.Tensor) -> Iterator[torch.Tensor]:
        scale, b, a = factors
        for rows, part_of in self._slices(gradient):
            change = (b[rows] @ a).view(-1)
            yield scale * self._products(change, gradient[rows].reshape(-1), part_of.reshape(-1))

    def _parts_of(self, start: int, size: int, device: Any) -> torch.Tensor:
        return partition(self.seed, self.block, start, size, self.parts).to(device)

    def _slices(self, matrix: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Slices of a matrix's rows, about CHUNK elements each, with the part of each element."""
        part_of = self._parts_of(self.start, matrix.numel(), matrix.device).view(matrix.shape)
        step = max(1, vectors.CHUNK // matrix.shape[1])
        for row in range(0, len(matrix), step):
            yield slice(row, row + step), part_of[row : row + step]

    def _products(self, change: torch.Tensor, gradient: torch.Tensor, part_of: torch.Tensor) -> torch.Tensor:
        """The inner product of `change` and `gradient` over the elements of each part, [part]."""
        return torch.bincount(part_of, weights=(change * gradient).double(), minlength=self.parts)


def partition(seed: int, block: str, start: int, size: int, parts: int) -> torch.Tensor:
    """The part (0 to parts - 1) of each of the `size` elements of a block from `start` on. Parts are drawn from the
    seed, the block's name and the position, and never stored."""

    def draw(at: int) -> torch.Tensor:
        return torch.randint(parts, (vectors.CHUNK,), generator=generator("partition", seed, block, at))

    return drawn(start, size, draw)
