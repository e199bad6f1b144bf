"""The layers of a language model in memory, and the places in them that hooks read and change."""

from __future__ import annotations

from typing import Any

from imprint.runtime.errors import ImprintError


def layers(model: Any, who: str) -> Any:
    """The layers of a language model, first to last: the outermost list of as many modules as its config says. Raises
    ImprintError, which names `who` asks, if the model has none."""
    import torch

    count = model.config.get_text_config().num_hidden_layers
    for module in model.get_decoder().modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    raise ImprintError(f"{who}: the model has no list of its {count} layers; write another model")


def layer(model: Any, number: int, who: str) -> Any:
    """One layer, counted from 0. Raises ImprintError for a layer that the model lacks."""
    found = layers(model, who)
    if not 0 <= number < len(found):
        raise ImprintError(
            f"{who}: found layer {number}, but the model has {len(found)}; write one of 0 to {len(found) - 1}"
        )
    return found[number]


def output_projections(model: Any, who: str) -> list[Any]:
    """The output projection of each layer's attention, whose input holds the heads side by side. Raises ImprintError
    for an architecture that names it otherwise than `o_proj`, as Llama, Mistral, Qwen, Gemma, Phi and SmolLM do."""
    found = [
        [module for name, module in each.named_modules() if name.endswith("self_attn.o_proj")]
        for each in layers(model, who)
    ]
    if any(len(modules) != 1 for modules in found):
        raise ImprintError(f"{who}: a layer of this model has no single `self_attn.o_proj`; write another model")
    return [modules[0] for modules in found]


def heads(model: Any) -> int:
    """The number of attention heads of a layer."""
    return int(model.config.get_text_config().num_attention_heads)


def changed(output: Any, change: Any) -> Any:
    """What a layer gives, with its activations (batch x positions x hidden size) put through `change`. In some
    architectures the activations come first of several things."""
    return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)


def activations(output: Any) -> Any:
    """The activations in what a layer gives."""
    return output[0] if isinstance(output, tuple) else output
