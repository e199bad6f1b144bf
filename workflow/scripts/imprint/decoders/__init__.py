"""Decoders: how an answer is drawn. A decoder works between the contexts and the engine: it gets a request, asks the
engine as often as it wants, and returns the answer that it chooses. An arm without a decoder draws each answer once."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from imprint.policies.dialogue import Request, Turns
from imprint.runtime import plugins
from imprint.tables.inputs import Read


class Decoder(plugins.Contract):
    """What a decoder defines."""

    LIKELIHOODS: bool = False
    """Whether it reads how likely a model finds what it has written. Not every engine knows that."""

    @staticmethod
    @abstractmethod
    def turns(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        """The requests that draw an answer to `request`. It never has options: options are scored, not drawn."""

    @staticmethod
    def draws(settings: Any) -> bool:
        """Whether the decoder sets a temperature itself, so that each seed gives another text."""
        return False


CONTRACT = Decoder
