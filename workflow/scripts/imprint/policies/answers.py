"""The answer in a response, as an arm's contexts read it."""

from __future__ import annotations

from imprint.runtime.plugins import Plug


def answer(contexts: list[Plug], response: str) -> tuple[str, bool]:
    """The text that is scored, and whether the response has the form that every context asks for. The context nearest
    to the model reads the response first."""
    text, complete = response, True
    for plug in reversed(contexts):
        module, settings = plug.open("contexts")
        text, formed = module.answer(text, settings)
        complete = complete and formed
    return text, complete


def rewarded(contexts: list[Plug], response: str) -> str:
    """The text that a reward for the answer reads while training."""
    text = response
    for plug in reversed(contexts):
        module, settings = plug.open("contexts")
        strict = module.rewarded(text, settings)
        text = module.answer(text, settings)[0] if strict is None else strict
    return text


def form(contexts: list[Plug]) -> str | None:
    """The name of the form that the contexts ask for, which scores of form know, or None. If several contexts ask for
    one, the last of them counts."""
    forms = [
        form for module, settings in (plug.open("contexts") for plug in contexts) if (form := module.form(settings))
    ]
    return forms[-1] if forms else None
