"""How alike task vectors are: the norm of each vector, and the cosine and sign agreement (share of elements with equal
signs) of each pair, by block and over the complete vectors. Vectors at right angles change different things; elements
of opposite signs cancel in a sum.

Between independent vectors, the mean cosine is 0 and the mean sign agreement 0.5. Two blocks at a time are in memory. A
block of an adapter is multiplied out, because signs belong to elements. A pair has no row for a block that only one of
its vectors touches.

analyses: {parents: {vector_similarity: [self_prompt, ppe_plan]}}
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from imprint.analyses import Analysis
from imprint.composition.settings import Vectors, reads
from imprint.runtime.plugins import Inputs

if TYPE_CHECKING:
    import torch


class Settings(Vectors):
    pass


def inputs(settings: Settings) -> Inputs:
    """The arms behind the vectors."""
    return reads(settings)


class Sums(NamedTuple):
    """Sums over the elements of two blocks: squared norms `a` and `b`, inner product, how many elements are nonzero in
    `both`, and how many of these `agree` in sign."""

    a: float = 0.0
    b: float = 0.0
    inner: float = 0.0
    both: float = 0.0
    agree: float = 0.0


def rows(job: Analysis) -> Iterator[dict[str, Any]]:
    """Rows of table `analyses`, with the quantities norm (without `other`), cosine and sign_agreement."""
    import torch

    from imprint.composition.composing import Place, place
    from imprint.composition.vectors import Pool

    chains = job.inputs.arms
    pool = Pool.of(next(iter(chains.values()))[:1], job.settings.vectors, chains)
    names = [vector.name for vector in pool.vectors]
    norms, pairs = dict.fromkeys(names, 0.0), {pair: Sums() for pair in combinations(names, 2)}
    with torch.no_grad():
        for block in pool.blocks.shapes:
            touching = [vector for vector in pool.vectors if vector.touches(block)]
            for i, vector in enumerate(touching):
                delta = vector.delta(block).view(-1)
                norm = float(torch.linalg.vector_norm(delta, dtype=torch.float64))
                norms[vector.name] += norm**2
                yield row(vector.name, None, place(block), "norm", norm, None)
                for other in touching[i + 1 :]:
                    pair, sums = (vector.name, other.name), compare(delta, other.delta(block).view(-1))
                    pairs[pair] = Sums(*(x + y for x, y in zip(pairs[pair], sums, strict=True)))
                    yield from similarity(*pair, place(block), sums)
    for name, square in norms.items():
        yield row(name, None, Place(None, "all"), "norm", square**0.5, None)
    for (name, other_name), sums in pairs.items():
        # A vector's norm is over all of its blocks, also those that the other vector does not touch.
        over_all = sums._replace(a=norms[name], b=norms[other_name])
        yield from similarity(name, other_name, Place(None, "all"), over_all)


def compare(a: torch.Tensor, b: torch.Tensor) -> Sums:
    """The sums over two flat blocks, computed in pieces."""
    import torch

    from imprint.composition.vectors import CHUNK

    total = Sums()
    for x, y in zip(torch.split(a, CHUNK), torch.split(b, CHUNK), strict=True):
        product = x.sign() * y.sign()  # the product of two tiny numbers could round to zero
        sums = (x.dot(x), y.dot(y), x.dot(y), product.abs().sum(), (product > 0).sum())
        total = Sums(*(p + float(q) for p, q in zip(total, sums, strict=True)))
    return total


def similarity(arm: str, other: str, place: Any, sums: Sums) -> Iterator[dict[str, Any]]:
    """The rows of a pair: cosine if both norms are positive, sign agreement if some element is nonzero in both."""
    if sums.a > 0 and sums.b > 0:
        yield row(arm, other, place, "cosine", sums.inner / (sums.a * sums.b) ** 0.5, 0.0)
    if sums.both > 0:
        yield row(arm, other, place, "sign_agreement", sums.agree / sums.both, 0.5)


def row(arm: str, other: str | None, place: Any, quantity: str, value: float, null: float | None) -> dict[str, Any]:
    """One row of table `analyses`."""
    return {
        "arm": arm,
        "other": other,
        "layer": place.layer,
        "kind": place.kind,
        "quantity": quantity,
        "value": value,
        "null": null,
    }
