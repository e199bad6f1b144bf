"""Contexts: how an example is put to a model.

A context is a generator (`imprint.policies.dialogue`). It gets a request and yields lists of its own requests, receives
the lists of their responses, and returns an outcome. So a context may call the model once or many times. Contexts form
a chain: the next context gets each request of the one before, and the last context's requests go to the model.
`[plain]` changes nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from imprint.policies.dialogue import Request, Turns
from imprint.runtime import plugins
from imprint.tables.inputs import Read


class Context(plugins.Contract):
    """What a context defines."""

    @staticmethod
    @abstractmethod
    def turns(request: Request, row: dict[str, Any], settings: Any, inputs: Read) -> Turns:
        """The requests that take the place of `request`. `row` is the example without its reference, which a model must
        not see. A request with `options` asks how likely each option is as the answer: exactly one of the context's own
        requests must carry these options on."""

    @staticmethod
    def draws(settings: Any) -> bool:
        """Whether the context sets a temperature itself, so that each seed gives another text."""
        return False

    @staticmethod
    def answer(response: str, settings: Any) -> tuple[str, bool]:
        """The part of a response that is scored, and whether the response has the form that the context asks for."""
        return response, True

    @staticmethod
    def rewarded(response: str, settings: Any) -> str | None:
        """The text that a reward for the answer reads while training, or None for the text that is scored."""
        return None

    @staticmethod
    def program(response: str, settings: Any) -> str | None:
        """The text in which a score of programs looks for the program, or None for the text that is scored. In it, each
        part of the response that may be a program is a block of code."""
        return None

    @staticmethod
    def form(settings: Any) -> str | None:
        """The name of the form that the context asks for, which scores of form know, or None."""
        return None

    @staticmethod
    def target(row: dict[str, Any], settings: Any) -> list[Any] | None:
        """The messages to train on for a dataset row, or None for the messages of the context's one request."""
        return None


CONTRACT = Context
