"""Which option does the model find likeliest? Each option is scored as an assistant's turn, and the likeliest is
chosen.

Example: log-likelihoods -7.1, -6.3 and -9.0 choose the second option.

By default the sums are compared as they are, because division by the length favours long options. Accuracy of the
untrained embedded model with sum / per character, on the bundled COAT-format questions (3 options, n = 48 to 64): task
u 0.70 / 0.64, task 0 0.47 / 0.42, task 1 0.46 / 0.38, task 2 0.31 / 0.27; on a quiz with 4 one-word options: 0.58 /
0.67.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.scores import Option, Verdict
from imprint.scoring import option_sets

ASKS = "loglikelihood"
VERSION = "1"
PRIMARY = "accuracy"
METRICS = option_sets.METRICS
Reference = option_sets.Reference


class Settings(Strict):
    """How options of different lengths are compared."""

    normalise: Literal["sum", "per_character"] = Field(
        "sum",
        description="`sum` compares log-likelihoods as they are, `per_character` divides each by its text's "
        "length, for options whose lengths differ much",
    )


def score(row: dict[str, Any], response: list[Option], settings: Settings) -> list[Verdict]:
    """Verdicts on the likeliest option, the first of equal ones. If a log-likelihood is NaN, all values but `chance`
    are None. Raises ImprintError if the options are not the row's."""
    reference = row["reference"]
    if [option.text for option in response] != reference["options"]:
        raise ImprintError(f"options: found {len(response)} scored texts; the row has {reference['options']!r:.200}")
    values = [o.logprob / max(len(o.text), 1) if settings.normalise == "per_character" else o.logprob for o in response]
    if any(math.isnan(value) for value in values):
        placeholders = option_sets.verdicts(reference, 0)
        return [v if v.metric == "chance" else v._replace(value=None) for v in placeholders]
    return option_sets.verdicts(reference, max(range(len(values)), key=values.__getitem__))
