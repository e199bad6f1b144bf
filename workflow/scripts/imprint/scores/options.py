"""Which option does the model find likeliest? Each option is scored as the assistant's turn; the likeliest is chosen.

PRIMARY is `accuracy`; `chance` stands beside it. Example: log-likelihoods -7.1, -6.3 and -9.0 choose the second option.
Sums are compared as they are: dividing by the length favours long options, and the untrained embedded model was right
less often with it on COAT's bundled questions (3 options, n = 48 to 64, sum / per character: task u 0.70 / 0.64,
0 0.47 / 0.42, 1 0.46 / 0.38, 2 0.31 / 0.27). The one-word options of a quiz gained by it (0.58 / 0.67 of 4).
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from imprint.errors import ImprintError
from imprint.option_sets import METRICS, checked, verdicts
from imprint.plugins import Strict
from imprint.scores import Option, Verdict

ASKS = "loglikelihood"
VERSION = "1"
PRIMARY = "accuracy"
__all__ = ["ASKS", "METRICS", "PRIMARY", "VERSION", "Settings", "score"]


class Settings(Strict):
    """How options of different lengths are compared."""

    normalise: Literal["sum", "per_character"] = Field(
        "sum",
        description="`sum` compares log-likelihoods as they are, `per_character` divides each by its text's "
        "length, for options whose lengths differ much",
    )


def score(row: dict[str, Any], response: list[Option], settings: Settings) -> list[Verdict]:
    """Verdicts of the likeliest option (the first of equal ones). A log-likelihood that is no number gives None."""
    reference = checked(row["reference"])
    if [option.text for option in response] != reference["options"]:
        raise ImprintError(f"options: found {len(response)} scored texts; the row has {reference['options']!r:.200}")
    values = [o.logprob / max(len(o.text), 1) if settings.normalise == "per_character" else o.logprob for o in response]
    if any(math.isnan(value) for value in values):
        return [Verdict(v.metric, None, v.item, v.label) if v.metric != "chance" else v for v in verdicts(reference, 0)]
    return verdicts(reference, max(range(len(values)), key=values.__getitem__))
