"""A constant that is added to what one layer of the model gives, at every position: of the prompt, of the response, and
of an option that is scored. It is one number for all elements, or a vector with a number for each."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from imprint.engines import Pass
from imprint.models.layers import changed, layer
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.tables.inputs import Read


class Settings(Strict):
    add: float | list[float] = Field(
        description="what is added, in the units of the activations: one number to every element, or a list with a "
        "number for each element of the model's hidden size; a list of another length stops the job"
    )
    layer: int = Field(
        ge=0, description="the layer whose output is changed, counted from 0; one that the model lacks stops the job"
    )
    strength: float = Field(
        1.0, description="factor before `add`; 0 leaves the model as it is, a negative one goes the other way"
    )


def install(model: Any, settings: Settings, inputs: Read, passing: Pass) -> None:
    """Add `strength * add` to the output (batch x positions x hidden size) of the layer, in the model's number format.
    Padding gets it too, but nothing attends to padding. With strength 0 nothing is registered. Raises ImprintError for
    a layer or a width that the model does not have, and for a constant that its number format cannot hold."""
    import torch

    module, width = layer(model, settings.layer, "hook 'constant'"), model.config.get_text_config().hidden_size
    if isinstance(settings.add, list) and len(settings.add) != width:
        raise ImprintError(
            f"hook 'constant': `add` has {len(settings.add)} numbers, but the model's hidden size is {width}; write "
            "that many, or one number for all elements"
        )
    exact = settings.strength * torch.tensor(settings.add, dtype=torch.float64)
    constant = exact.to(model.device, model.dtype)
    if not constant.isfinite().all():
        raise ImprintError(
            f"hook 'constant': `strength: {settings.strength}` times `add` is more than {model.dtype} can hold; write "
            "a smaller strength"
        )

    if settings.strength != 0:
        module.register_forward_hook(lambda _, given, output: changed(output, lambda hidden: hidden + constant))
