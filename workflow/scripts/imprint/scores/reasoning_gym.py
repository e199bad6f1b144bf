"""Is the answer to a reasoning_gym question right? The library's own verifier of the task scores it, 0 to 1.

The answer is the text between the last <answer> tags, or else the complete response. Some verifiers run the answer or
the row as Python (`eval`, `sympy.parse_expr`), so all of them run in a jail. Such a verifier only sees an answer that
is data or a formula, because an answer that runs could make itself right.
"""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from typing import Any

from pydantic import Field

from imprint.datasets.reasoning_gym import make, unpack
from imprint.runtime.identity import canonical
from imprint.runtime.plugins import Strict
from imprint.scores import Reads, Verdict

ASKS = "generate"
VERSION = "2"
PRIMARY = "reward"
METRICS = {"reward": 1, "solved": 1}
JAILED = True

LONGER = 2_000  # characters; an answer may be four times as long as the library's own, plus this
LISTS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
ARITHMETIC = frozenset({"countdown", "puzzle24"})
ALGEBRA = frozenset({"intermediate_integration", "polynomial_multiplication", "simple_integration"})
# The form of the library's own answers. As Python, such text calls nothing, and names nothing that a verifier has.
PLAIN = re.compile(r"[A-Z\d\s.,'\"-]*|[_Q\s]*")
# NaN and infinities compare, round and clip in ways that the verifiers do not expect.
NOT_FINITE = re.compile(r"(?<![a-z])(?:nan|inf(?:inity)?)j?(?![a-z])", re.IGNORECASE)
# Possessive and atomic groups (*+, ++, (?>...)): no backtracking, so linear in the answer's length.
SUM = re.compile(r"(?:(?>\d{1,9})(?!\d)|[-+/() .]|\*(?!\*))*+")
NAMES = frozenset(
    ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln", "sqrt", "pi")
)
# Numbers, letters, functions by name, and exponents of up to two digits, but no powers of powers. A point must belong
# to a number, so that it cannot fetch an attribute.
FORMULA = re.compile(
    r"(?:(?>\d{1,12})(?!\d)|[A-Za-z]++|(?<=\d)\.(?![A-Za-z])|\.(?=\d)|[-+/(), ]"
    r"|\*\*\s?\(?-?(?>\d{1,2})(?!\d)(?:/\d{1,2}\))?(?!\s?\*\*)|\*(?!\*))*+"
)
# Calls of sympy's E, I, N, O, Q and S, some of which compute any number of digits.
CALLED = re.compile(r"(?<![A-Za-z])[A-Za-z]\s*\(")


class Settings(Strict):
    """Nothing to set."""


class Reference(Reads):
    """A question as `datasets/reasoning_gym.py` makes it."""

    task: str = Field(description="the task of the library")
    entry: dict[str, Any] = Field(description="the library's entry of the question")
    config: dict[str, Any] | None = Field(None, description="settings of the task")


def warm() -> None:
    """Import the library."""
    import reasoning_gym.factory  # noqa: F401


def ahead(row: dict[str, Any]) -> None:
    """Make the task's dataset, because some read a large file of examples. A dataset with settings of the row is left
    to `score`, whose time is limited."""
    reference = row["reference"]
    if not reference.get("config"):
        _dataset(reference["task"], "{}")


@cache
def _dataset(task: str, config: str) -> Any:
    return make(task, 1, 0, json.loads(config))


def answer(response: str) -> str:
    """The text between the last <answer> and the next </answer>, or the complete response."""
    _, opened, after = response.rpartition("<answer>")
    return (after.partition("</answer>")[0] if opened else response).strip()


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
    """`reward`, as the verifier gives it (many reward the form alone a little), and `solved`, 1 for a full reward. An
    empty answer is unparsed. An answer has the reward 0 if it is far too long, if it holds NaN or an infinity that the
    library's answer does not hold, or if it is not `safe`."""
    reference = row["reference"]
    task, entry = reference["task"], unpack(reference["entry"])
    text = answer(response)
    if not text:
        return [Verdict(metric, 0.0, unparsed=True) for metric in METRICS]
    reward, gold = 0.0, str(entry.get("answer") or "")
    finite = not NOT_FINITE.search(text) or NOT_FINITE.search(gold)
    if finite and len(text) <= 4 * len(gold) + LONGER and safe(task, text):
        dataset = _dataset(task, canonical(reference.get("config") or {}))
        try:
            reward = float(dataset.score_answer(text, entry))
        except ImportError:
            raise
        except Exception:  # a verifier that raises has not accepted the answer
            reward = 0.0
    return [Verdict("reward", reward), Verdict("solved", float(reward >= 1.0))]
