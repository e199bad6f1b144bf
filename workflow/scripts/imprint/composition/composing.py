"""theta_0 + sum of coefficient x task vector, in the live model, with exact gradients of the coefficients (aTLAS, Zhang
et al., arXiv 2407.02880).

dL/dlambda of a block is the inner product of the block's weight gradient, at the merged weights, with the task vector.
So the merged weights are written into the model without a graph, one ordinary backward pass runs, and a hook
takes each gradient as it is complete, adds its inner products to the coefficients' gradient, and frees it. For an
adapter's vector < G, s B A > = s sum((B^T G) * A). No graph over the vectors is built and no full gradient is ever
held; vectors are read from disk piece by piece, or lie on the GPU as far as it has room for them. It equals autograd
through `torch.func.functional_call`, and adds up over micro-batches.

    composition = Composition(model, pool, granularity="tensor")
    composition.merge()
    loss(model).backward()                            # composition.values.grad is filled
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from imprint.composition import writing
from imprint.composition.sharing import Parts, Whole
from imprint.composition.vectors import CPU, Pool, Vector, pieces


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
        start, sharing = self.pool.start.read(block, out.device), self._sharing(block)
        wide = out if out.dtype == torch.float32 else torch.empty_like(out, dtype=torch.float32)
        flat, live = wide.view(-1), self._live(block)
        dense = [(vector, x) for vector, x in live if vector.dense]
        share = sharing.share(dense)
        if not dense:
            flat.copy_(start)
        for piece in pieces(block, self.pool.root, out.device) if dense else ():
            part = flat[piece.span]
            torch.add(start[piece.span].to(out.device), piece.base, alpha=-share, out=part)
            sharing.add(piece, dense, part)
        for vector, x in live:
            for factors in vector.factors(block):
                sharing.add_low(factors.on(out.device), x, wide)
        if wide is not out:
            out.copy_(wide)
        return out

    def save(self, out: Path) -> None:
        """Write the sum of every block as the artifact in folder `out`, all in one buffer."""
        longest = max(torch.Size(self.pool.blocks.shapes[block]).numel() for block in self.blocks)
        buffer = torch.empty(longest, device=self.device)

        def compose(block: str) -> torch.Tensor:
            shape = self.pool.blocks.shapes[block]
            if block in self.group:
                return self.sum(block, buffer[: torch.Size(shape).numel()].view(shape))
            return self.pool.start.read(block).float().view(shape)

        writing.write(out, self.pool, compose)

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

    def _sharing(self, block: str) -> Whole | Parts:
        return Whole() if self.parts == 1 else Parts(self.seed, block, self.parts)

    def _live(self, block: str) -> list[tuple[Vector, torch.Tensor]]:
        """The vectors that count in a block's sum, with their coefficients [part]. A zero coefficient is left out, so
        that coefficients of zero give the start bit for bit."""
        group = self.group[block]
        values = self.values.detach()[:, group]
        counts = self.chosen[:, group] & values.ne(0).any(1)
        return [
            (vector, x)
            for vector, x, c in zip(self.pool.vectors, values, counts.tolist(), strict=True)
            if c and vector.touches(block)
        ]

    def _hook(self, block: str) -> Any:
        def take(parameter: torch.nn.Parameter) -> None:
            assert parameter.grad is not None
            with torch.no_grad():
                self._add(block, parameter.grad)
            parameter.grad = None

        return take

    def _add(self, block: str, gradient: torch.Tensor) -> None:
        """Add a block's inner products to the coefficients' gradient."""
        group, vectors, sharing = self.group[block], self.pool.vectors, self._sharing(block)
        live = [i for i, vector in enumerate(vectors) if vector.touches(block) and self.chosen[i, group]]
        dense = [i for i in live if vectors[i].dense]
        products = torch.zeros(len(vectors), self.parts, dtype=torch.float64, device=gradient.device)
        flat = gradient.reshape(-1)
        for piece in pieces(block, self.pool.root, flat.device) if dense else ():
            inner = sharing.inner(piece, [vectors[i] for i in dense], flat[piece.span].float())
            for i, product in zip(dense, inner, strict=True):
                products[i] += product
        for i in live:
            for factors in vectors[i].factors(block):
                for product in sharing.inner_low(factors.on(gradient.device), gradient.float()):
                    products[i] += product
        if self.values.grad is None:
            self.values.grad = torch.zeros_like(self.values)
        self.values.grad[:, group] += products.cpu().float()
