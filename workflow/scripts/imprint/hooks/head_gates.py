"""A task's embedding in the attention heads (soft injection, arXiv 2507.20906): at the prompt's last token, a head's
activation a becomes (1 - g) a + g * embedding. Embedding and gates g come from a fit (`method: head_gates`). Tokens
that are written afterwards are not changed.

apply: {hooks: {head_gates: {of: antonym_gates}}}
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from imprint.engines import Pass
from imprint.models.layers import heads, output_projections
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict
from imprint.tables.inputs import Read

WHO = "hook 'head_gates'"
TENSORS = ("embedding", "logits")


class Settings(Strict):
    of: str = Field(description="the arm whose fit has made embedding and gates (`method: head_gates`)")
    strength: float = Field(1.0, ge=0, le=1, description="factor before the gates; 0 leaves the model as it is")
    gates: Literal["learned", "half", "shuffled"] = Field(
        "learned",
        description="`half` and `shuffled` are controls: all gates 0.5, and the learned ones dealt out anew over all "
        "heads of all layers",
    )
    seed: int = Field(0, description="another seed deals the gates out otherwise (with `shuffled`)")


def inputs(settings: Settings) -> Inputs:
    return Inputs(arms=(settings.of,))


def install(model: Any, settings: Settings, inputs: Read, passing: Pass) -> None:
    """Mix the embedding into the heads of every layer. With strength 0 nothing is registered."""
    import torch

    from imprint.artifacts import hooks

    found = hooks.read(inputs.arms[settings.of], WHO, TENSORS)
    logits = found["logits"]
    if settings.gates == "half":
        logits = torch.zeros_like(logits)
    elif settings.gates == "shuffled":
        generator = torch.Generator().manual_seed(settings.seed)
        logits = logits.flatten()[torch.randperm(logits.numel(), generator=generator)].view_as(logits)
    if settings.strength != 0:
        inject(model, found["embedding"], logits, passing, settings.strength)


def inject(model: Any, embedding: Any, logits: Any, passing: Pass, strength: float = 1.0) -> None:
    """Register the mixture for an embedding [layers, heads, head width] and the gates' logits [layers, heads], which
    may be in training. Raises ImprintError for an embedding of another shape than the model's heads."""
    import torch

    modules, number = output_projections(model, WHO), heads(model)
    expected = (len(modules), number, modules[0].in_features // number)
    if tuple(embedding.shape) != expected:
        raise ImprintError(
            f"{WHO}: the embedding has (layers, heads, width) {tuple(embedding.shape)}, and the model has {expected}; "
            "name an arm of this model"
        )
    target, logits = embedding.to(model.device), logits.to(model.device)

    def mixed(hidden: Any, layer: int) -> Any:
        at = passing.at("last_prompt")
        if at is None:
            return hidden
        split = hidden.unflatten(-1, expected[1:]).float()
        gates = strength * torch.sigmoid(logits[layer])[:, None]
        new = ((1 - gates) * split + gates * target[layer]).flatten(-2)
        return torch.where(at[..., None], new.to(hidden.dtype), hidden)

    for layer, module in enumerate(modules):
        module.register_forward_pre_hook(lambda _, given, layer=layer: (mixed(given[0], layer), *given[1:]))
