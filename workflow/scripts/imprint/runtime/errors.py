"""The error for the person at the terminal, and text made safe to print there."""

import re

OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys instead of showing: control characters other than tab and new line, line separators,
and changes of writing direction. Surrogates are among them, since they cannot be printed at all."""


def shown(text: object) -> str:
    r"""Text that somebody else may have written (a name, a path, a model's words), safe to print: each character of
    `OBEYED` is written as an escape such as `\x1b`."""
    return OBEYED.sub(lambda character: ascii(character[0])[1:-1], str(text))


class ImprintError(Exception):
    """The one exception whose message is written for the person at the terminal. The message says what was found,
    where, and what to do; it is shown without a traceback."""

    def __init__(self, message: object) -> None:
        super().__init__(shown(message))
