"""theta_0 + sum of coefficient x task vector, in the live model, with exact gradients of the coefficients (aTLAS, Zhang
et al., arXiv 2407.02880).

dL/dlambda of a block is the inner product of the block's weight gradient, at the merged weights, with the task vector.
So the merged weights are written into the model without a graph, one ordinary backward pass runs, and a hook
takes each gradient as it is complete, adds its inner products to the coefficients' gradient, and frees it. For an
adapter's vector < G, s B A > = s sum((B^T G) * A). No graph over the vectors is built and no full gradient is ever
held; vectors are read from disk piece by piece, or lie on the GPU as far as it has room for them. It equals autograd
through `torch.func.functional_call`, and adds up over micro-batches.

    made = Composition(model, pool, granularity="tensor")
    made.merge()
    loss(model).backward()                            # made.values.grad is filled
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from imprint import tensor_files
from imprint.vectors import CHUNK, CPU, Pool, Vector, generator, pieces


class Place(NamedTuple):
    """Where a block stands: its layer (None outside the layers) and what it is in there."""

    layer: int | None
    kind: str


def place(block: str) -> Place:
    """Layer 3 and "mlp.up_proj.weight" for "model.layers.3.mlp.up_proj.weight"."""
    parts = block.split(".")
    for i, part in enumerate(parts):
        if part.isdecimal():
            return Place(int(part), ".".join(parts[i + 1 :]))
    return Place(None, ".".join(parts[-2:]))


def groups(blocks: list[str], granularity: str) -> dict[str, int]:
    """Block -> index of the coefficient it shares: one each (tensor), or one a layer, a kind or a vector. Outside the
    layers, "layer" gives each block one of its own."""
    sharers: dict[str, Callable[[str], object]] = {
        "tensor": lambda block: block,
        "layer": lambda block: block if place(block).layer is None else place(block).layer,
        "kind": lambda block: place(block).kind,
        "vector": lambda block: None,
    }
    sharer = sharers[granularity]
    keys = list(dict.fromkeys(sharer(block) for block in blocks))
    return {block: keys.index(sharer(block)) for block in blocks}


def partition(seed: int, block: str, start: int, size: int, parts: int) -> torch.Tensor:
    """The part (0 to parts - 1) of each of `size` elements of a block from `start` on, a multiple of CHUNK: drawn anew
    from seed, name and position whenever it is needed, so that no index is stored."""
    drawn = [
        torch.randint(parts, (CHUNK,), generator=generator("partition", seed, block, at))
        for at in range(start, start + size, CHUNK)
    ]
    return torch.cat(drawn)[:size]


class Composition:
    """Coefficients of a pool of vectors: `values` [vector, group, part], zeros, with its gradient in `values.grad`
    (fp32, on the CPU). Where `chosen` [vector, group] is False, a coefficient stays zero and costs nothing."""

    def __init__(
        self, model: Any, pool: Pool, granularity: str = "tensor", parts: int = 1, seed: int = 0, start: float = 0.0
    ) -> None:
        """`model` holds the pool's start in fp32 (or bf16: then sums are fp32 and cast last); None if coefficients are
        only to be saved. Parameters that no vector touches need no gradient any more."""
        self.pool, self.parts, self.seed = pool, parts, seed
        self.blocks = [b for b in pool.blocks.shapes if any(v.touches(b) for v in pool.vectors)]
        self.group = groups(self.blocks, granularity)
        size = 1 + max(self.group.values())
        self.values = torch.full((len(pool.vectors), size, parts), start, requires_grad=True)
        self.chosen = torch.ones(len(pool.vectors), size, dtype=torch.bool)
        self.parameters: dict[str, torch.nn.Parameter] = {}
        self._handles: list[Any] = []
        if model is not None:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in self.group)
                if name in self.group:
                    self.parameters[name] = parameter
                    self._handles.append(parameter.register_post_accumulate_grad_hook(self._hook(name)))
        self.device = next((parameter.device for parameter in self.parameters.values()), CPU)
        if self.device.type == "cuda":
            pool.keep(self.device)

    def detach(self) -> None:
        """Let go of the model: its gradients stay with it again."""
        for handle in self._handles:
            handle.remove()

    def merge(self) -> None:
        """Write the sum into the model's parameters, from the start and never from the last sum."""
        with torch.no_grad():
            for block, parameter in self.parameters.items():
                self.sum(block, parameter.data)

    def sum(self, block: str, out: torch.Tensor) -> torch.Tensor:
        """One block of theta_0 + sum of coefficient x vector, written to `out` (contiguous, the block's shape)."""
        flat, start = out.view(-1), self.pool.start.read(block, out.device)
        live = self._live(block, nonzero=True)
        dense = [(v, x) for v, x in live if v.dense]
        low = [(x, f) for v, x in live for f in v.factors(block)]
        wide = flat if out.dtype == torch.float32 else torch.empty_like(flat, dtype=torch.float32)
        if not dense:
            wide.copy_(start)
        # An arm's elements and the root's enter apart, in half the passes that differences take, at an error of a few
        # units in the last place of the sum.
        share = sum(float(x) for vector, x in dense if vector.stored) if self.parts == 1 else 0.0
        for at, base, room in pieces(block, self.pool.root, out.device) if dense else ():
            piece = wide[at : at + len(base)]
            index = self._index(block, at, len(piece), out.device)
            torch.add(start[at : at + len(piece)].to(out.device), base, alpha=-share, out=piece)
            for vector, x in dense:
                if index is not None:
                    piece.addcmul_(vector.fill(block, at, base, room), x.to(out.device)[index])
                elif vector.stored:
                    piece.add_(vector.elements(block, at, base), alpha=float(x))
                else:
                    piece.add_(vector.fill(block, at, base, room), alpha=float(x))
        matrix = wide.view(out.shape)
        for x, (scale, b, a) in low:
            b, a = b.to(out.device), a.to(out.device)
            if self.parts == 1:
                matrix.addmm_(b, a, alpha=scale * float(x))
            else:
                for rows, index in self._rows(block, out.shape, out.device):
                    matrix[rows].addcmul_(b[rows] @ a, x.to(out.device)[index], value=scale)
        if wide is not flat:
            flat.copy_(wide)
        return out

    def save(self, path: Path) -> None:
        """Write the sum of every block to a safetensors file in fp32, one block at a time and all in one buffer; what
        is no parameter is copied from the start."""
        weights, alias = self.pool.start.weights, self.pool.blocks.alias
        names = {alias.get(name, name): name for name in weights.names}
        shapes = []
        for block, name in names.items():
            raw = weights.read(name)
            is_block = block in self.pool.blocks.shapes
            shapes.append((block, tuple(raw.shape), torch.float32 if is_block else raw.dtype))

        longest = max(torch.Size(self.pool.blocks.shapes[block]).numel() for block in self.blocks)
        buffer = torch.empty(longest, device=self.device)

        def read(block: str) -> torch.Tensor:
            if block not in self.pool.blocks.shapes:
                return weights.read(names[block])
            shape = self.pool.blocks.shapes[block]
            if block in self.group:
                return self.sum(block, buffer[: torch.Size(shape).numel()].view(shape))
            return self.pool.start.read(block).float().view(shape)

        path.parent.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            tensor_files.write(path, shapes, read)

    def rows(self, arm: str, seed: int) -> list[dict[str, Any]]:
        """The rows of table `coefficients`: one per vector, block it touches, and part."""
        values = self.values.detach().tolist()
        return [
            {
                "arm": arm,
                "seed": seed,
                "vector": vector.name,
                "layer": place(block).layer,
                "kind": place(block).kind,
                "block": block,
                "part": part,
                "value": values[i][self.group[block]][part],
            }
            for i, vector in enumerate(self.pool.vectors)
            for block in self.blocks
            if vector.touches(block)
            for part in range(self.parts)
        ]

    def _live(self, block: str, nonzero: bool) -> list[tuple[Vector, torch.Tensor]]:
        """The vectors that count in a block, with their coefficients [part]. A zero coefficient is left out of a sum,
        so that coefficients of zero give the start bit for bit."""
        group = self.group[block]
        values = self.values.detach()[:, group]
        counts = self.chosen[:, group] & (values.ne(0).any(1) | (not nonzero))
        return [
            (vector, x)
            for vector, x, c in zip(self.pool.vectors, values, counts.tolist(), strict=True)
            if c and vector.touches(block)
        ]

    def _index(self, block: str, at: int, size: int, device: Any) -> torch.Tensor | None:
        return None if self.parts == 1 else partition(self.seed, block, at, size, self.parts).to(device)

    def _rows(self, block: str, shape: torch.Size, device: Any) -> Iterator[tuple[slice, torch.Tensor]]:
        """Slices of a matrix's rows with the part of each element."""
        width = shape[1]
        flat = partition(self.seed, block, 0, shape.numel(), self.parts).to(device).view(shape)
        for row in range(0, shape[0], step := max(1, CHUNK // width)):
            yield slice(row, row + step), flat[row : row + step]

    def _hook(self, block: str) -> Any:
        def take(parameter: torch.nn.Parameter) -> None:
            assert parameter.grad is not None
            with torch.no_grad():
                self._add(block, parameter.grad)
            parameter.grad = None

        return take

    def _add(self, block: str, gradient: torch.Tensor) -> None:
        """Add a block's inner products to the coefficients' gradient."""
        group = self.group[block]
        live = [i for i, v in enumerate(self.pool.vectors) if v.touches(block) and self.chosen[i, group]]
        if self.values.grad is None:
            self.values.grad = torch.zeros_like(self.values)
        vectors = self.pool.vectors
        products = torch.zeros(len(vectors), self.parts, dtype=torch.float64, device=gradient.device)
        flat = gradient.reshape(-1)
        dense = [i for i in live if vectors[i].dense]
        for at, base, room in pieces(block, self.pool.root, flat.device) if dense else ():
            piece = flat[at : at + len(base)].float()
            index = self._index(block, at, len(piece), flat.device)
            for i in dense:
                products[i] += self._inner(vectors[i].fill(block, at, base, room), piece, index)
        for i in live:
            for scale, b, a in vectors[i].factors(block):
                matrix, b, a = gradient.float(), b.to(gradient.device), a.to(gradient.device)
                if self.parts == 1:
                    products[i] += scale * torch.dot((b.T @ matrix).view(-1), a.reshape(-1))
                else:
                    for rows, index in self._rows(block, gradient.shape, gradient.device):
                        part = (b[rows] @ a).view(-1)
                        products[i] += scale * self._inner(part, matrix[rows].reshape(-1), index.reshape(-1))
        self.values.grad[:, group] += products.cpu().float()

    def _inner(self, delta: torch.Tensor, gradient: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
        """Inner product, or one per part."""
        if index is None:
            return torch.dot(delta, gradient)
        return torch.bincount(index, weights=(delta * gradient).double(), minlength=self.parts)
