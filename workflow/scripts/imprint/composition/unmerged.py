"""Adapters that stay beside a layer's weight. A linear layer computes W x + sum of coefficient x s B (A x), as PEFT
does before it merges an adapter (LoRA, arXiv 2106.09685). Where no other vector touches the layer, its weight is never
merged and has no gradient, which saves a third of the layer's work in a step. Autograd gives the gradient of the
coefficients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from imprint.artifacts import Factors
from imprint.composition.vectors import Pool


def layers(model: Any, pool: Pool, blocks: Sequence[str]) -> Mapping[str, torch.nn.Linear]:
    """Those of the blocks that adapters change and that are the weight of one linear layer alone, with the layer. A
    weight that an output layer shares with the embedding is not among them."""
    users: dict[int, list[torch.nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            users.setdefault(id(parameter), []).append(module)
    found = {}
    for block in blocks:
        layer, *others = users[id(model.get_parameter(block))]
        adapted = any(vector.factors(block) for vector in pool.vectors)
        if isinstance(layer, torch.nn.Linear) and not others and adapted:
            found[block] = layer
    return found


class Adapters:
    """The adapters of a layer, stacked: two products, whatever their number. `of_vector` has the factors of each vector
    in the layer. They are kept on the device and in the number format of the layer's weight."""

    def __init__(self, of_vector: Sequence[Sequence[Factors]], weight: torch.Tensor) -> None:
        every = [(vector, each) for vector, factors in enumerate(of_vector) for each in factors]
        self.down = torch.cat([factors.a for _, factors in every]).to(weight)  # [ranks, inputs]
        self.up = torch.cat([factors.b for _, factors in every], 1).to(weight)  # [outputs, ranks]
        scales = torch.zeros(len(of_vector), len(self.down))
        start = 0
        for vector, factors in every:
            rank = len(factors.a)
            scales[vector, start : start + rank] = factors.scale
            start += rank
        self.scales = scales.to(weight.device)
        """[vector, rank]: what each rank of a vector is multiplied with, and 0 for the ranks of others."""

    def add(self, coefficients: torch.Tensor, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The layer's output with the adapters. `coefficients` [vector] in fp32; `inputs` [..., inputs]."""
        hidden = torch.nn.functional.linear(inputs, self.down) * (coefficients @ self.scales).to(inputs)
        return output + torch.nn.functional.linear(hidden, self.up)
