"""What is an answer to a reasoning_gym question worth? Scored by the library's own verifier of the task, 0 to 1.

The answer is what stands between the last <answer> tags, or else the whole response. Some verifiers run the answer, or
the row, as Python (`eval`, `sympy.parse_expr`), so all of them run in a jail; and what they would run must be data or a
formula before they see it, since an answer that runs could make itself right.
"""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from typing import Any

from imprint.datasets.reasoning_gym import make, unpack
from imprint.errors import ImprintError
from imprint.identity import canonical
from imprint.plugins import Strict
from imprint.scores import Verdict

ASKS = "generate"
VERSION = "2"
PRIMARY = "reward"
METRICS = {"reward": 1, "solved": 1}
JAILED = True

LONGER = 2_000  # an answer may be four times as long as the library's own, and this many characters more
LISTS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
ARITHMETIC = frozenset({"countdown", "puzzle24"})
ALGEBRA = frozenset({"intermediate_integration", "polynomial_multiplication", "simple_integration"})
# The form of the library's own answers. As Python it calls nothing and names nothing that a verifier has.
PLAIN = re.compile(r"[A-Z\d\s.,'\"-]*|[_Q\s]*")
# Python's numbers that are none compare, round and clip in ways that no verifier thought of.
NOT_FINITE = re.compile(r"(?<![a-z])(?:nan|inf(?:inity)?)j?(?![a-z])", re.IGNORECASE)
# Possessive and atomic groups (*+, ++, (?>...)): no backtracking, so linear in the answer's length.
SUM = re.compile(r"(?:(?>\d{1,9})(?!\d)|[-+/() .]|\*(?!\*))*+")
NAMES = frozenset(
    ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln", "sqrt", "pi")
)
# Numbers, letters, functions by name, and powers up to two digits that are no powers of powers. A point belongs to a
# number, and fetches no attribute.
FORMULA = re.compile(
    r"(?:(?>\d{1,12})(?!\d)|[A-Za-z]++|(?<=\d)\.(?![A-Za-z])|\.(?=\d)|[-+/(), ]"
    r"|\*\*\s?\(?-?(?>\d{1,2})(?!\d)(?:/\d{1,2}\))?(?!\s?\*\*)|\*(?!\*))*+"
)
# sympy's E, I, N, O, Q and S: some are functions that compute as many digits as they are told to.
CALLED = re.compile(r"(?<![A-Za-z])[A-Za-z]\s*\(")


class Settings(Strict):
    """Nothing to set."""


def warm() -> None:
    """Import the library before time counts (`imprint.bounded`)."""
    import reasoning_gym.factory  # noqa: F401


def ahead(row: dict[str, Any]) -> None:
    """Make the task's dataset before time counts (some read a library of examples), if it is made as the library itself
    makes it: settings that come with a row are for the process that is bounded."""
    reference = row["reference"]
    if isinstance(reference, dict) and isinstance(reference.get("task"), str) and not reference.get("config"):
        _dataset(reference["task"], "{}")


@cache
def _dataset(task: str, config: str) -> Any:
    return make(task, 1, 0, json.loads(config))


def answer(response: str) -> str:
    """The text between the last <answer> and the </answer> that follows, or the whole response."""
    _, opened, rest = response.rpartition("<answer>")
    return (rest.partition("</answer>")[0] if opened else response).strip()


def safe(task: str, text: str) -> bool:
    """Whether an answer may be given to the task's verifier."""
    if task in LISTS:
        return bool(PLAIN.fullmatch(text)) or _literal_list(text)
    if task in ARITHMETIC:
        return len(text) <= LONGER // 4 and bool(SUM.fullmatch(text))
    if task in ALGEBRA:
        words = re.findall(r"[A-Za-z]+", text)
        return (
            len(text) <= LONGER // 4
            and bool(FORMULA.fullmatch(text))
            and all(len(word) == 1 or word in NAMES for word in words)
            and not CALLED.search(text)
            and len(re.findall(r"\)\s*\*\*", text)) <= 2
        )
    return True


def _literal_list(text: str) -> bool:
    try:
        return isinstance(ast.literal_eval(text), list)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False


def score(row: dict[str, Any], response: str, settings: Settings) -> list[Verdict]:
    """`reward` as the verifier gives it (many give something for the form), and `solved`, 1 for a full reward. An empty
    answer is unparsed. Worth 0 is one that is far too long, that holds NaN or an infinity, or that a verifier would run
    although it is no data."""
    reference = row["reference"]
    if not isinstance(reference, dict) or not {"task", "entry"} <= set(reference):
        raise ImprintError(f'reference: found {reference!r:.80}; write {{"task": ..., "entry": {{...}}}}')
    task, entry = reference["task"], unpack(reference["entry"])
    found = answer(response)
    if not found:
        return [Verdict(metric, 0.0, unparsed=True) for metric in METRICS]
    reward, gold = 0.0, str(entry.get("answer") or "")
    finite = not NOT_FINITE.search(found) or NOT_FINITE.search(gold)
    if finite and len(found) <= 4 * len(gold) + LONGER and safe(task, found):
        dataset = _dataset(task, canonical(reference.get("config") or {}))
        try:
            reward = float(dataset.score_answer(found, entry))
        except ImportError:
            raise
        except Exception:  # a verifier that stumbles over an answer has not accepted it
            reward = 0.0
    return [Verdict("reward", reward), Verdict("solved", float(reward >= 1.0))]
