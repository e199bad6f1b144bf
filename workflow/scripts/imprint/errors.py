"""What a person at the terminal is told."""

import re

OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys instead of showing them: control characters but for tab and new line, separators of
lines, changes of direction; and surrogates, which cannot be printed at all."""


def shown(text: object) -> str:
    r"""A text that may be somebody else's, such as a name, a path or a model's words, as a terminal can be given it:
    what it would obey is written as `\x1b`."""
    return OBEYED.sub(lambda found: ascii(found[0])[1:-1], str(text))


class ImprintError(Exception):
    """The one exception whose message is meant for the person at the terminal: it says what was found, where, and what
    to do, and is shown without a traceback."""

    def __init__(self, message: object) -> None:
        super().__init__(shown(message))
