"""Environments: dialogues of an eval with more than one request. An environment plays the other side of a dialogue,
over any number of turns, and says how the dialogue ended. Each of its requests goes through the arm's contexts and
decoder. Like a user, it hears only the answer that the contexts find in a response, without the role or thoughts before
it. The text of its outcome is the complete response: at scoring, the contexts find the answer in it again."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from imprint.policies.dialogue import Turns
from imprint.runtime import plugins
from imprint.tables.inputs import Read


class Environment(plugins.Contract):
    """What an environment defines."""

    @staticmethod
    @abstractmethod
    def turns(row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        """The dialogue of one example. It sees the complete dataset row. Its score reads the state of its outcome."""

    @staticmethod
    def draws(settings: Any) -> bool:
        """Whether its requests set a temperature of their own, so that seeds differ even for a greedy arm."""
        return False


CONTRACT = Environment
