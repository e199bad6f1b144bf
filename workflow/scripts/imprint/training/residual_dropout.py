"""Dropout on the residual branches, as LIMA's recipe has it (arXiv 2305.11206, after arXiv 2203.02155). Elements of
what the attention and the MLP of a layer add to the residual stream are dropped. The rate rises linearly from 0 at the
bottom layer to a given rate at the top layer.

The rates are forward hooks. They are no modules, so that weights and adapters are saved as without them. The masks come
from torch's generator, whose state is in every checkpoint of the fit, and which gradient checkpointing sets back before
it computes a layer again. So a fit that was broken off, and one that recomputes activations, draw the same masks.
"""

from __future__ import annotations

from typing import Any

from imprint.models.layers import layers
from imprint.runtime.errors import ImprintError

BRANCHES = ("self_attn", "mlp")
"""The modules of a layer whose outputs are added to the residual stream, in Llama and its relatives."""


def rates(top: float, count: int) -> list[float]:
    """The rate of each of `count` layers, bottom first. A single layer is the top layer."""
    return [top * place / (count - 1) for place in range(count)] if count > 1 else [top]


def install(model: Any, top: float, arm: str) -> None:
    """Drop elements of the residual branches while the model trains. Raises ImprintError for a model whose layers have
    other branches, or a norm between a branch and the residual stream, as in Gemma 2."""
    from torch.nn.functional import dropout

    modules = layers(model, f"arm '{arm}': residual_dropout")

    def hook(rate: float) -> Any:
        def dropped(module: Any, given: Any, output: Any) -> Any:
            if isinstance(output, tuple):  # attention also returns its weights
                return (dropout(output[0], rate, module.training), *output[1:])
            return dropout(output, rate, module.training)

        return dropped

    for layer, rate in zip(modules, rates(top, len(modules)), strict=True):
        children = dict(layer.named_children())
        norms = [name for name in children if "norm" in name]
        if not set(BRANCHES) <= children.keys() or len(norms) != len(BRANCHES):
            raise ImprintError(
                f"arm '{arm}': residual_dropout: the model's layers hold {', '.join(children)}; it is made for layers "
                f"of {' and '.join(BRANCHES)} with one norm before each; write residual_dropout: 0"
            )
        for branch in BRANCHES if rate > 0 else ():
            children[branch].register_forward_hook(hook(rate))
