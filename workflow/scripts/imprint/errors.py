"""The one exception whose message is meant for the person at the terminal."""


class ImprintError(Exception):
    """Says what was found, where, and what to do; it is shown without a traceback."""
