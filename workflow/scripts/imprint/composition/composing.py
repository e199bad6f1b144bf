"""Composing task vectors: theta_0 + sum of coefficient x vector in a live model, with exact gradients of the
coefficients (aTLAS, Zhang et al., arXiv 2407.02880).

The gradient of a block's coefficient is <G, V>: the inner product of the block's weight gradient G, at the merged
weights, with the task vector V. So the merged weights are written into the model without a graph, and an ordinary
backward pass runs. A hook takes each block's gradient when it is complete, adds the inner products to the coefficients'
gradient, and frees the block's gradient. For an adapter's vector, <G, s B A> = s sum((B^T G) * A).

So no graph over the vectors is built, and the gradients of all blocks are never in memory together. Vectors are read
from disk piece by piece, or stacked in the GPU's memory as far as it allows (`stacks`). The adapters of a linear layer
stay beside its weight (`unmerged`), and autograd gives their inner products. The gradients equal those of autograd
through `torch.func.functional_call`, and add up over micro-batches.

    composition = Composition(model, pool, granularity="tensor")
    composition.merge()
    loss(model).backward()                            # composition.values.grad is filled

Where several ranks share the model, each writes and reads the rows of a block that it holds, of the model and of all
vectors, and its inner products are those of its rows. So the coefficients' gradient is the sum of the ranks'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.distributed.fsdp import FSDPModule

from imprint.composition import stacks, unmerged, writing
from imprint.composition.sharing import Partitioned, Single
from imprint.composition.stacks import Stack
from imprint.composition.vectors import CPU, Part, Pool, Vector, pieces
from imprint.runtime.ranks import Ranks
from imprint.training.sharded import held


class Place(NamedTuple):
    """A block's layer (None outside the layers) and its kind, which is its name within the layer."""

    layer: int | None
    kind: str


def place(block: str) -> Place:
    """The place of a block: layer 3 and kind "mlp.up_proj.weight" for "model.layers.3.mlp.up_proj.weight"."""
    parts = block.split(".")
    for i, part in enumerate(parts):
        if part.isdecimal():
            return Place(int(part), ".".join(parts[i + 1 :]))
    return Place(None, ".".join(parts[-2:]))


def groups(blocks: list[str], granularity: str) -> dict[str, int]:
    """Block -> the index of its group. Blocks of a group share a coefficient: each block is a group ("tensor"), or all
    blocks of a layer, of a kind, or of the vector. With "layer", each block outside the layers is a group."""
    keys_of: dict[str, Callable[[str], object]] = {
        "tensor": lambda block: block,
        "layer": lambda block: block if place(block).layer is None else place(block).layer,
        "kind": lambda block: place(block).kind,
        "vector": lambda block: None,
    }
    key_of = keys_of[granularity]
    keys = list(dict.fromkeys(key_of(block) for block in blocks))
    return {block: keys.index(key_of(block)) for block in blocks}


class Composition:
    """A pool of vectors and their coefficients. `values` holds the coefficients [vector, group, part], and
    `values.grad` their gradient, both fp32 and on the model's device. Where `chosen` [vector, group] is False, sums and
    gradients skip the vector; the learner keeps its coefficients at zero. A value beyond the `bounds` counts as the
    bound, and its gradient is zero, as that of torch.clamp. Until the first `merge` the model is the start."""

    def __init__(
        self,
        model: Any,
        pool: Pool,
        granularity: str = "tensor",
        parts: int = 1,
        seed: int = 0,
        start: float = 0.0,
        bounds: tuple[float, float] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """All coefficients begin at `start`. `model` holds the pool's start, in fp32 or bf16. With bf16, sums are
        computed in fp32 and rounded once; stacks and adapters are kept in bf16. Without a model, the composition can
        only be saved. Parameters that are not merged get no gradient. `ranks` share the model."""
        self.pool, self.parts, self.seed, self.bounds = pool, parts, seed, bounds
        self.blocks = [b for b in pool.blocks.shapes if any(v.touches(b) for v in pool.vectors)]
        self.group = groups(self.blocks, granularity)
        self.device = CPU if model is None else next(model.parameters()).device
        vectors, size = len(pool.vectors), 1 + max(self.group.values())
        self.values = torch.full((vectors, size, parts), start, device=self.device, requires_grad=True)
        self.chosen = torch.ones(vectors, size, dtype=torch.bool, device=self.device)
        self.parameters: dict[str, torch.nn.Parameter] = {}
        """The parameters that are merged, by the block's name."""
        self._learns = torch.ones_like(self.values, dtype=torch.bool)
        """Where a coefficient has a gradient: where it is chosen and within the bounds."""
        self._ranks = ranks or Ranks()
        self._parts = {block: pool.blocks.part(block, ranks) for block in self.blocks}
        self._stacks: dict[str, Stack] = {}
        self._layers: Mapping[str, torch.nn.Linear] = {}
        """The layers beside whose weights adapters stay, by the block's name."""
        self._of_adapters: Any = torch.zeros(vectors, size, device=self.device, requires_grad=True)
        """The coefficients with which these adapters act since the last `merge`. Their graph begins with them."""
        self._of_groups = self._of_adapters.unbind(1)
        self._gathering: list[FSDPModule] = []
        self._handles: list[Any] = []
        if model is not None:
            self._take_over(model)

    def _take_over(self, model: Any) -> None:
        """Put hooks on the model's parameters and layers."""
        self._gathering = [module for module in model.modules() if isinstance(module, FSDPModule)]
        self._layers = unmerged.layers(model, self.pool, self.blocks) if self.parts == 1 else {}
        for block, parameter in model.named_parameters():
            dense = any(vector.dense and vector.touches(block) for vector in self.pool.vectors)
            merged = block in self.group and (dense or block not in self._layers)
            parameter.requires_grad_(merged)
            if merged:
                self.parameters[block] = parameter
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._hook(block)))
        for block, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._adding(block, layer)))
        self._handles.append(self._of_adapters.register_post_accumulate_grad_hook(self._take_of_adapters))
        if self.parts == 1:
            weights = {block: held(parameter) for block, parameter in self.parameters.items()}
            # A block whose adapters have no layer to stay beside is summed piece by piece.
            factored = {block for block in weights if any(vector.factors(block) for vector in self.pool.vectors)}
            stacked = [block for block in weights if block in self._layers or block not in factored]
            self._stacks = stacks.build(self.pool, stacked, self._parts, weights, stacks.room(self.device))

    @property
    def coefficients(self) -> torch.Tensor:
        """The values within the bounds: what the vectors are multiplied with, [vector, group, part]."""
        values = self.values.detach()
        return values if self.bounds is None else values.clamp(*self.bounds)

    def detach(self) -> None:
        """Remove the hooks. The model keeps its gradients again, and loses the adapters beside its weights."""
        for handle in self._handles:
            handle.remove()

    def merge(self) -> None:
        """Put the coefficients, and what is chosen, into the model. Each sum begins at the start's weights, not at the
        last sum, so errors do not add up."""
        for module in self._gathering:
            module.reshard()  # else it would go on with the whole weights that it has gathered before
        coefficients, chosen = self.coefficients, self.chosen.unsqueeze(2)
        self._learns = chosen & (coefficients == self.values.detach())
        used = coefficients * chosen
        with torch.no_grad():
            for block, parameter in self.parameters.items():
                if (stack := self._stacks.get(block)) is not None:
                    stack.sum(used[:, self.group[block], 0], held(parameter))
                else:
                    self.sum(block, held(parameter), self._parts[block], adapters=block not in self._layers)
            self._of_adapters.copy_(used[..., 0])
        self._of_groups = self._of_adapters.unbind(1)

    def sum(self, block: str, out: torch.Tensor, part: Part | None = None, adapters: bool = True) -> torch.Tensor:
        """A block of theta_0 + sum of coefficient x vector, or a part of it, written to `out`, which is contiguous and
        has the shape of these rows. Without `adapters`, only the vectors' dense parts are added. Returns `out`."""
        part = part or self.pool.blocks.part(block)
        start, sharing = self.pool.start.read(block, out.device, part), self._sharing(block, part)
        total = out if out.dtype == torch.float32 else torch.empty_like(out, dtype=torch.float32)
        flat, terms = total.view(-1), self._terms(block)
        dense = [(vector, coefficients) for vector, coefficients in terms if vector.dense]
        surplus = sharing.surplus(dense)
        if not dense:
            flat.copy_(start)
        for piece in pieces(block, self.pool.root, out.device, part.span) if dense else ():
            place = part.within(piece.span)
            elements = flat[place]
            torch.add(start[place].to(out.device), piece.root, alpha=-surplus, out=elements)
            sharing.add_dense(piece, dense, elements)
        for vector, coefficients in terms if adapters else ():
            for factors in vector.factors(block):
                sharing.add_factors(factors.of_rows(part.rows).on(out.device), coefficients, total)
        if total is not out:
            out.copy_(total)
        return out

    def save(self, out: Path) -> None:
        """Write the sum of every block as the artifact in folder `out`. The blocks share one buffer."""
        longest = max(torch.Size(self.pool.blocks.shapes[block]).numel() for block in self.blocks)
        buffer = torch.empty(longest, device=self.device)

        def compose(block: str) -> torch.Tensor:
            shape = self.pool.blocks.shapes[block]
            if block in self.group:
                return self.sum(block, buffer[: torch.Size(shape).numel()].view(shape))
            return self.pool.start.read(block).float().view(shape)

        writing.write(out, self.pool, compose)

    def rows(self, arm: str, seed: int) -> list[dict[str, Any]]:
        """Rows of the table `coefficients`, one for each vector, each block that it touches, and each part."""
        values = self.coefficients.tolist()
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

    def _sharing(self, block: str, part: Part) -> Single | Partitioned:
        return Single() if self.parts == 1 else Partitioned(self.seed, block, self.parts, part.span.start)

    def _terms(self, block: str) -> list[tuple[Vector, torch.Tensor]]:
        """The chosen vectors that touch a block, with their coefficients [part]. Vectors whose coefficients are all
        zero are left out, so that a sum without others is the start bit for bit."""
        group = self.group[block]
        values, chosen = self.coefficients[:, group].cpu(), self.chosen[:, group].cpu()
        counts = chosen & values.ne(0).any(1)
        return [
            (vector, coefficients)
            for vector, coefficients, counted in zip(self.pool.vectors, values, counts.tolist(), strict=True)
            if counted and vector.touches(block)
        ]

    def _adding(self, block: str, layer: torch.nn.Linear) -> Any:
        """The hook that adds the adapters of a layer to its output."""
        adapters = unmerged.Adapters([vector.factors(block) for vector in self.pool.vectors], held(layer.weight))
        group = self.group[block]

        def add(layer: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            return adapters.add(self._of_groups[group], inputs[0], output)

        return add

    def _take_of_adapters(self, coefficients: torch.Tensor) -> None:
        assert coefficients.grad is not None
        # The learner multiplies a loss by the number of ranks, since FSDP averages gradients. These are not averaged.
        self._accumulate(slice(None), coefficients.grad.unsqueeze(2) / self._ranks.size)
        coefficients.grad = None

    def _hook(self, block: str) -> Any:
        def take(parameter: torch.nn.Parameter) -> None:
            assert parameter.grad is not None
            with torch.no_grad():
                self._add(block, held(parameter.grad))
            parameter.grad = None

        return take

    def _add(self, block: str, gradient: torch.Tensor) -> None:
        """Add the inner products of a block's part to the coefficients' gradient."""
        if (stack := self._stacks.get(block)) is not None:
            products = stack.products(gradient).unsqueeze(1)
        else:
            products = self._products(block, gradient)
        self._accumulate(self.group[block], products)

    def _products(self, block: str, gradient: torch.Tensor) -> torch.Tensor:
        """The inner products of a block's part with the chosen vectors, [vector, part], fp64."""
        part, group, vectors = self._parts[block], self.group[block], self.pool.vectors
        sharing = self._sharing(block, part)
        chosen = self.chosen[:, group].tolist()
        touching = [i for i, vector in enumerate(vectors) if vector.touches(block) and chosen[i]]
        dense = [i for i in touching if vectors[i].dense]
        products = torch.zeros(len(vectors), self.parts, dtype=torch.float64, device=gradient.device)
        flat = gradient.reshape(-1)
        for piece in pieces(block, self.pool.root, flat.device, part.span) if dense else ():
            inner = sharing.inner_dense(piece, [vectors[i] for i in dense], flat[part.within(piece.span)].float())
            for i, product in zip(dense, inner, strict=True):
                products[i] += product
        for i in touching if block not in self._layers else ():
            for factors in vectors[i].factors(block):
                factors = factors.of_rows(part.rows).on(gradient.device)
                for product in sharing.inner_factors(factors, gradient.float()):
                    products[i] += product
        return products

    def _accumulate(self, groups: int | slice, products: torch.Tensor) -> None:
        """Add inner products to the gradient of the groups' coefficients, where they learn. All of it stays on the
        device, so that the host need not wait for them."""
        if self.values.grad is None:
            self.values.grad = torch.zeros_like(self.values)
        self.values.grad[:, groups] += products.float() * self._learns[:, groups]
