r"""Is the answer mathematically equal to the reference? Judged by math-verify, in a jail, since it hands what it reads
to sympy, which evaluates it.

The answer is the last \boxed{...} of the response; with `boxed: false` a response without a box may also end in a
formula or a number. Example: "... so it is \boxed{\frac{1}{2}}." equals the reference {"answer": "0.5"}.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from imprint.errors import ImprintError
from imprint.plugins import Strict
from imprint.scores import Verdict

ASKS = "generate"
VERSION = "2"
PRIMARY = "accuracy"
METRICS = {"accuracy": 1}
JAILED = True

READ = 20_000  # characters at the end of a response that are looked at
LONGEST = 1_000  # characters of an answer; a longer one is none
BOX = "\\boxed{"


class Settings(Strict):
    boxed: bool = Field(True, description="only an answer inside \\boxed{} counts; false also takes a final formula")


def boxed(text: str) -> str | None:
    """What the last \\boxed{} of a text holds, its braces balanced; None where there is none, or it never ends."""
    start = text.rfind(BOX)
    if start < 0:
        return None
    depth = 1
    for place in range(start + len(BOX), min(len(text), start + len(BOX) + LONGEST + 1)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + len(BOX) : place].strip()
    return None


FIRST = (
    ("1", "1"), ("\\frac{1}{2}", "0.5"), ("\\sqrt{2}", "\\frac{2}{\\sqrt{2}}"), ("x^2 + 1", "(x + 1)^2 - 2x"),
    ("(1, 2]", "[1, 2]"), ("x = 3", "3"), ("\\{1, 2\\}", "1, 2"), ("12\\%", "0.12"), ("\\text{yes}", "no"),
    ("10^3", "1{,}000"), ("\\frac{\\pi}{2}", "90^\\circ"), ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "(1, 2)"),
)  # fmt: skip


def warm() -> None:
    """Import and run what is slow the first time, before time counts: each kind of formula goes another way through the
    parser, and every verdict's process begins with what this one has learned."""
    for gold, answer in FIRST:
        judge(gold, answer, True)


def judge(gold: str, answer: str, formula: bool) -> float | None:
    """1 if `answer` (a formula, or text that ends in one) equals `gold`, else 0; None for an unreadable `gold`."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    kinds = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    how: dict[str, Any] = {"extraction_config": kinds, "parsing_timeout": None}
    # A lone word is kept as text by the parser; as a gold it can be compared with nothing.
    wanted = [part for part in parse(f"${gold}$", **how) if not isinstance(part, str)]
    if not wanted:
        return None
    found = parse(f"${answer}$" if formula else answer, extraction_mode="first_match", **how)
    return float(bool(found) and verify(wanted, found, timeout_seconds=None))


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """Accuracy, 1 or 0; a response without an answer is wrong and unparsed.
    A reference that math-verify cannot read gives null, so that its example is left out."""
    reference = row["reference"]
    if not isinstance(reference, dict) or not isinstance(reference.get("answer"), str):
        raise ImprintError(f'reference: found {reference!r:.80}; write {{"answer": "a formula or number"}}')
    gold = reference["answer"].strip().removeprefix("$").removesuffix("$")
    text = response[-READ:]
    answer = boxed(text)
    formula = answer is not None
    if answer is None:
        answer = "" if settings.boxed else text[-LONGEST:]
    if not answer.strip():
        readable = judge(gold, "0", True) is not None
        return [Verdict("accuracy", 0.0 if readable else None, unparsed=readable)]
    return [Verdict("accuracy", judge(gold, answer, formula))]
