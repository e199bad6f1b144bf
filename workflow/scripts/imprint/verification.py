"""The one way to a verdict: every check of a response, in an evaluation and as a reward, runs in a bounded worker.

A score is judged in a process that ends with it or is killed (`imprint.bounded`). One that evaluates what it reads, or
hands it to a library that does, says `JAILED = True`, and is judged in a jail. `SECONDS` of a score is how much CPU
time a verdict may take; it is bounded's LIMIT where the score names none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imprint import bounded, isolation, plugins
from imprint.scores import Option, Verdict

MOST = 1000  # verdicts on one response: an IFEval prompt has a dozen
LARGEST = 1e300  # a value; 0 or 1 is usual, and neither NaN nor an infinity is below it
LONGEST_LABEL = 200  # characters


def verdicts(
    score: str, settings: plugins.Strict, row: dict[str, Any], response: str | list[Option], *answers: Any
) -> list[Verdict]:
    """What a score says of a response to a dataset row (`messages`, `reference`, `fields`, plain JSON); a judged score
    also reads a judge's `answers`. Raises `bounded.Failure` when there is no verdict: the check took too long (its
    subclass `Timeout`), stumbled (`Stumble`), died, or gave a value that is not finite; and ImprintError for a row that
    cannot be judged."""
    module = plugins.load("scores", score)
    said = bounded.call(
        "imprint.verification:judge",
        [score, settings.model_dump(mode="json"), row, response, *answers],
        limit=getattr(module, "SECONDS", bounded.LIMIT),
        warm=f"imprint.scores.{score}",
        jailed=jailed(score),
    )
    if not isinstance(said, list) or not 0 < len(said) <= MOST or not all(_sound(one, module.METRICS) for one in said):
        raise bounded.Stumble(f"{score} gave {said!r:.200}, which are no verdicts with finite values of its metrics")
    return [Verdict(*one) for one in said]


def _sound(said: Any, metrics: Mapping[str, int]) -> bool:
    """Whether a verdict from a worker has the form of one: what a response runs there may say anything."""
    if not isinstance(said, list) or len(said) != len(Verdict._fields):
        return False
    metric, value, item, label, unparsed = said
    return (
        isinstance(metric, str)
        and metric in metrics
        and (value is None or (isinstance(value, int | float) and abs(value) <= LARGEST))
        and (item is None or (isinstance(item, int) and 0 <= item < MOST))
        and (label is None or (isinstance(label, str) and label.isprintable() and len(label) <= LONGEST_LABEL))
        and isinstance(unparsed, bool)
    )


def jailed(score: str) -> bool:
    """Whether a score is judged in a jail."""
    return bool(getattr(plugins.load("scores", score), "JAILED", False))


def version(score: str) -> str:
    """A score with its version and the conditions under which it judges here, for the tables. Raises ImprintError where
    it needs a jail and there is none."""
    module = plugins.load("scores", score)
    isolated = jailed(score) or getattr(module, "ISOLATES", False)
    return f"{score} {module.VERSION}" + (f", isolated by {isolation.check()}" if isolated else "")


def ahead(score: str, settings: dict[str, Any], row: dict[str, Any], *given: Any) -> None:
    """Let a score load what verdicts on a row need, before time counts, in the worker, which does not read the response
    where the score is jailed."""
    if prepare := getattr(plugins.load("scores", score), "ahead", None):
        prepare(row)


def judge(score: str, settings: dict[str, Any], row: dict[str, Any], response: Any, *answers: Any) -> list[Verdict]:
    """In the worker: a score's verdicts."""
    module = plugins.load("scores", score)
    if module.ASKS == "loglikelihood":
        response = [Option(*option) for option in response]
    verdicts: list[Verdict] = module.score(row, response, plugins.settings("scores", score, settings), *answers)
    return verdicts
