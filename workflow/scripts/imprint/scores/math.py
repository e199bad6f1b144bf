r"""Is the answer mathematically equal to the reference? math-verify decides. It runs in a jail, because it hands the
answer to sympy, which evaluates it.

The answer is the last \boxed{...} of the response; with `boxed: false` a response without a box may also end in a
formula or a number. Example: "... so it is \boxed{\frac{1}{2}}." equals the reference {"answer": "0.5"}.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from imprint.runtime.plugins import Strict
from imprint.scores import Reads, Verdict
from imprint.scoring.forms import LONGEST, boxed

ASKS = "generate"
VERSION = "2"
PRIMARY = "accuracy"
METRICS = {"accuracy": 1}
JAILED = True

TAIL = 20_000  # characters at the end of a response that are read


class Settings(Strict):
    boxed: bool = Field(True, description="only an answer inside \\boxed{} counts; false also takes a final formula")


class Reference(Reads):
    answer: str = Field(description="a formula or number, in LaTeX or plain")


EXAMPLES = (
    ("1", "1"), ("\\frac{1}{2}", "0.5"), ("\\sqrt{2}", "\\frac{2}{\\sqrt{2}}"), ("x^2 + 1", "(x + 1)^2 - 2x"),
    ("(1, 2]", "[1, 2]"), ("x = 3", "3"), ("\\{1, 2\\}", "1, 2"), ("12\\%", "0.12"), ("\\text{yes}", "no"),
    ("10^3", "1{,}000"), ("\\frac{\\pi}{2}", "90^\\circ"), ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "(1, 2)"),
)  # fmt: skip


def warm() -> None:
    """Import math-verify, and judge a formula of each kind: the parser is slow on the first of a kind, and every
    verdict's process starts as a copy of this one."""
    for gold, answer in EXAMPLES:
        judge(gold, answer, True)


def judge(gold: str, answer: str, formula: bool) -> float | None:
    """1 if `answer` (a formula, or text that ends in one) equals `gold`, else 0; None for an unreadable `gold`."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    kinds = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    options: dict[str, Any] = {"extraction_config": kinds, "parsing_timeout": None}
    # The parser keeps a lone word as text, which cannot be compared with anything.
    expected = [part for part in parse(f"${gold}$", **options) if not isinstance(part, str)]
    if not expected:
        return None
    parsed = parse(f"${answer}$" if formula else answer, extraction_mode="first_match", **options)
    return float(bool(parsed) and verify(expected, parsed, timeout_seconds=None))


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """Accuracy, 1 or 0; a response without an answer is wrong and unparsed. If math-verify cannot read the reference,
    the value is None, so that the example is left out."""
    gold = row["reference"]["answer"].strip().removeprefix("$").removesuffix("$")
    text = response[-TAIL:]
    answer = boxed(text)
    formula = answer is not None
    if answer is None:
        answer = "" if settings.boxed else text[-LONGEST:]
    if not answer.strip():
        readable = judge(gold, "0", True) is not None
        return [Verdict("accuracy", 0.0 if readable else None, unparsed=readable)]
    return [Verdict("accuracy", judge(gold, answer, formula))]
