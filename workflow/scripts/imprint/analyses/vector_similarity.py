"""How alike task vectors are: each one's norm, and each pair's cosine and share of elements whose signs agree, block by
block and over the whole vector. At right angles, vectors change different things; where signs disagree, sums cancel.

A cosine is 0 and a share 0.5 on average between independent vectors. Two blocks at a time are in memory, multiplied out
where they are an adapter's, since signs belong to elements; a block that only one vector touches gives a pair no row.

analyses: {parents: {vector_similarity: [self_prompt, ppe_plan]}}
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from imprint import learning
from imprint.analyses import Analysis
from imprint.methods import Inputs

if TYPE_CHECKING:
    import torch


class Settings(learning.Vectors):
    pass


def inputs(settings: Settings) -> Inputs:
    """The arms behind the vectors."""
    return learning.inputs(settings)


class Sums(NamedTuple):
    """Of two blocks: squared norms, inner product, elements that neither has at zero, and those of one sign."""

    a: float = 0.0
    b: float = 0.0
    inner: float = 0.0
    both: float = 0.0
    agree: float = 0.0


def rows(job: Analysis) -> Iterator[dict[str, Any]]:
    """Rows of table `analyses`: quantity norm (no `other`), cosine and sign_agreement."""
    import torch

    from imprint.composition import Place, place
    from imprint.vectors import Pool

    pool = Pool(next(iter(job.arms.values()))[:1], {name: job.arms[name] for name in job.settings.vectors})
    names = [vector.name for vector in pool.vectors]
    norms, pairs = dict.fromkeys(names, 0.0), {pair: Sums() for pair in combinations(names, 2)}
    with torch.no_grad():
        for block in pool.blocks.shapes:
            live = [vector for vector in pool.vectors if vector.touches(block)]
            for i, vector in enumerate(live):
                one = vector.delta(block).view(-1)
                norm = float(torch.linalg.vector_norm(one, dtype=torch.float64))
                norms[vector.name] += norm**2
                yield row(vector.name, None, place(block), "norm", norm, None)
                for other in live[i + 1 :]:
                    found, pair = compare(one, other.delta(block).view(-1)), (vector.name, other.name)
                    pairs[pair] = Sums(*(x + y for x, y in zip(pairs[pair], found, strict=True)))
                    yield from similarity(*pair, place(block), found)
    for name, square in norms.items():
        yield row(name, None, Place(None, "all"), "norm", square**0.5, None)
    for (one_name, other_name), sums in pairs.items():
        # Their norms are those of all blocks, also of blocks that only one of them touches.
        whole = sums._replace(a=norms[one_name], b=norms[other_name])
        yield from similarity(one_name, other_name, Place(None, "all"), whole)


def compare(a: torch.Tensor, b: torch.Tensor) -> Sums:
    """The sums of two flat blocks, piece by piece."""
    import torch

    from imprint.vectors import CHUNK

    total = Sums()
    for x, y in zip(torch.split(a, CHUNK), torch.split(b, CHUNK), strict=True):
        product = x.sign() * y.sign()  # of signs, since the product of two tiny numbers may be zero
        found = (x.dot(x), y.dot(y), x.dot(y), product.abs().sum(), (product > 0).sum())
        total = Sums(*(p + float(q) for p, q in zip(total, found, strict=True)))
    return total


def similarity(arm: str, other: str, place: Any, sums: Sums) -> Iterator[dict[str, Any]]:
    """The rows of a pair, where both have something."""
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
