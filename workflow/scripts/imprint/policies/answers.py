"""The part of a response that is judged, as an arm's contexts read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imprint.runtime.plugins import Plug

Reader = Callable[[str, Any], str | None]
"""A function of a context: a response and the context's settings -> a part of the response, or None for its answer."""


def judged(reads: str, contexts: list[Plug], response: str) -> str:
    """The part of a response that a score judges in an evaluation. `reads` is the score's READS."""
    if reads == "response":
        return response
    return program(contexts, response) if reads == "program" else answer(contexts, response)[0]


def rewarded(reads: str, contexts: list[Plug], response: str) -> str:
    """The part of a response that a score judges as a reward, while training. `reads` is the score's READS."""
    if reads == "response":
        return response
    if reads == "program":
        return program(contexts, response)
    return _part(contexts, response, lambda context: context.rewarded)


def answer(contexts: list[Plug], response: str) -> tuple[str, bool]:
    """The text that is scored, and whether the response has the form that every context asks for. The context nearest
    to the model reads the response first."""
    text, complete = response, True
    for plug in reversed(contexts):
        module, settings = plug.open("contexts")
        text, formed = module.answer(text, settings)
        complete = complete and formed
    return text, complete


def program(contexts: list[Plug], response: str) -> str:
    """The text in which a score of programs looks for the program."""
    return _part(contexts, response, lambda context: context.program)


def _part(contexts: list[Plug], response: str, reader: Callable[[Any], Reader]) -> str:
    text = response
    for plug in reversed(contexts):
        module, settings = plug.open("contexts")
        part = reader(module)(text, settings)
        text = module.answer(text, settings)[0] if part is None else part
    return text


def form(contexts: list[Plug]) -> str | None:
    """The name of the form that the contexts ask for, which scores of form know, or None. If several contexts ask for
    one, the last of them counts."""
    forms = [
        form for module, settings in (plug.open("contexts") for plug in contexts) if (form := module.form(settings))
    ]
    return forms[-1] if forms else None
