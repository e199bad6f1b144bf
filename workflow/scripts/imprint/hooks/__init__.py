"""Hooks: changes to a model's activations while it answers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from imprint.runtime import plugins
from imprint.tables.inputs import Read


class Hook(plugins.Contract):
    """What a hook defines."""

    @staticmethod
    @abstractmethod
    def install(model: Any, settings: Any, inputs: Read) -> None:
        """Register forward hooks on a torch module whose weights are loaded and cast. The hooks stay as long as the
        model. Raises ImprintError if a layer or a width does not fit the model."""


CONTRACT = Hook
