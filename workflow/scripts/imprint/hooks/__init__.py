"""Hooks: changes to a model's activations while it answers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from imprint.engines import Pass
from imprint.runtime import plugins
from imprint.tables.inputs import Read


class Hook(plugins.Contract):
    """What a hook defines."""

    @staticmethod
    @abstractmethod
    def install(model: Any, settings: Any, inputs: Read, passing: Pass) -> None:
        """Register forward hooks on a torch module whose weights are loaded and cast. The hooks stay as long as the
        model. While they run, `passing` says which columns of the pass are padding, prompt, or written tokens. Several
        hooks at one place act in the config's order. Raises ImprintError if a layer or a width does not fit the
        model."""


CONTRACT = Hook
