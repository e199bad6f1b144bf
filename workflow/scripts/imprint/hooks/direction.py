"""A direction in the residual stream that a fit has found (`method: direction`): it is added to what a layer gives, or
projected out of it. So a behaviour is steered without a prompt and without other weights.

apply: {hooks: {direction: {of: plan_direction, strength: 0.5}}}

The strength of `add` is in units of the mean norm of the layer's activations, as the fit has measured it, so that it
means the same in every model: with 0.5, a step half as long as the activations themselves is added. The strength of
`project_out` is the share of the activation's part along the direction that is taken away.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from imprint.engines import Pass, Positions
from imprint.models.layers import changed, layer
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict
from imprint.tables.inputs import Read

WHO = "hook 'direction'"
TENSORS = ("differences", "norms", "layer")


class Settings(Strict):
    of: str = Field(description="the arm whose fit has found the direction (`method: direction`)")
    strength: float = Field(
        1.0,
        description="`add`: length of the step, in mean norms of the layer's activations; a negative one goes the "
        "other way. `project_out`: the share that is taken away, 1 for all. 0 leaves the model as it is",
    )
    change: Literal["add", "project_out"] = Field("add", description="what is done with the direction")
    positions: Positions = Field(
        "all",
        description="the tokens whose activations are changed: `all`, those of the `prompt`, `last_prompt` for the "
        "prompt's last one, `written` for those that follow the prompt",
    )
    layer: int | None = Field(
        None, ge=0, description="the layer whose output is changed, counted from 0; null is the fit's layer"
    )


def inputs(settings: Settings) -> Inputs:
    return Inputs(arms=(settings.of,))


def install(model: Any, settings: Settings, inputs: Read, passing: Pass) -> None:
    """Change the output (batch x positions x hidden size) of the layer at the positions. Sums are made in fp32. With
    strength 0 nothing is registered."""
    from imprint.artifacts import hooks

    found = hooks.read(inputs.arms[settings.of], WHO, TENSORS)
    steer(model, found, settings, passing)


def steer(model: Any, found: dict[str, Any], settings: Settings, passing: Pass) -> Any:
    """Register the change, and return its handle; None with strength 0. `found`: `differences` [layers, hidden size],
    `norms` [layers], `layer` []. Raises ImprintError for a layer that the model lacks, for a direction of another width
    or of a model with another number of layers, and for a direction without length."""
    import torch

    differences, norms = found["differences"], found["norms"]
    number = settings.layer if settings.layer is not None else int(found["layer"])
    module = layer(model, number, WHO)
    config = model.config.get_text_config()
    expected = (config.num_hidden_layers, config.hidden_size)
    if tuple(differences.shape) != expected:
        raise ImprintError(
            f"{WHO}: '{settings.of}' has {differences.shape[0]} layers of width {differences.shape[1]}, and the model "
            f"has {expected[0]} of width {expected[1]}; name a direction of this model"
        )
    length = torch.linalg.vector_norm(differences[number].double())
    if not length:
        raise ImprintError(
            f"{WHO}: the direction of '{settings.of}' at layer {number} has no length; write another layer"
        )
    unit = (differences[number].double() / length).float().to(model.device)
    step = settings.strength * float(norms[number])

    def moved(hidden: Any) -> Any:
        at = passing.at(settings.positions)
        if at is None:
            return hidden
        exact = hidden.float()
        if settings.change == "add":
            new = exact + step * unit
        else:
            new = exact - settings.strength * (exact @ unit)[..., None] * unit
        return torch.where(at[..., None], new.to(hidden.dtype), hidden)

    if settings.strength == 0:
        return None
    return module.register_forward_hook(lambda _, given, output: changed(output, moved))
