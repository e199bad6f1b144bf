"""The part of a command line that says which logs are compared, and how."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imprint.logs.sides import Side
    from imprint.logs.verdict import Verdict


def add_fields(parser: argparse.ArgumentParser) -> None:
    """The options that say what is compared."""
    parser.add_argument("--metric", help="the metric of the questions; without it, the first that both sides have")
    parser.add_argument("--question", metavar="FIELD", help="the field of an example that holds its question")
    parser.add_argument("--cluster", metavar="FIELD", help="the field whose values are the clusters of examples")


def compared(
    options: argparse.Namespace, evals: list[str] | None = None, margins: dict[str, float] | None = None
) -> tuple[Side, Side, Verdict]:
    """The two sides that the command line names, A and B, and the verdict on them (`verdict.compared`)."""
    from imprint.logs import sides, verdict

    fields = {key: value for key, value in (("question", options.question), ("cluster", options.cluster)) if value}
    control, arm = sides.both(options.a, options.b, fields)
    return control, arm, verdict.compared(control, arm, options.metric, evals, margins)
