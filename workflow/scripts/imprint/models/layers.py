"""The layers of a language model in memory."""

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
