"""Verdicts on responses, in an evaluation and as a reward: every check runs in a worker that can be killed.

A score runs in a worker with limits (`scoring/bounded.py`). A score with `JAILED = True` runs in a jailed worker,
because it evaluates what it reads, or hands it to a library that does. `SECONDS` of a score limits the CPU time of a
verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imprint.runtime import needs, plugins
from imprint.runtime.errors import ImprintError
from imprint.scores import Option, Verdict
from imprint.scoring import bounded, isolation

MOST = 1000  # verdicts on one response; an IFEval prompt has a dozen
LARGEST = 1e300  # the largest value; NaN and infinities fail the comparison with it
LONGEST_LABEL = 200  # characters


def verdicts(score: str, settings: plugins.Strict, row: dict[str, Any], response: str | list[Option]) -> list[Verdict]:
    """A score's verdicts on a response to a dataset row (`messages`, `reference`, `fields`, `state`, plain JSON; for a
    judged score also a judge's `answers`).

    Raises ImprintError for a row whose reference lacks what the score reads. Raises `bounded.Failure` if there is no
    verdict: as `Timeout` if the check took too long, as `Stumble` if it raised an error or gave no valid verdicts."""
    module = plugins.load("scores", score)
    if wrong := needs.problem(score, row.get("reference")):
        raise ImprintError(f"the score '{score}' cannot judge the row: {wrong}")
    answer = bounded.call(
        "imprint.scoring.verification:judge",
        [score, settings.model_dump(mode="json"), row, response],
        limit=module.SECONDS,
        warm=("imprint.scoring.verification:warm", score),
        ahead="imprint.scoring.verification:ahead",
        jailed=module.JAILED,
    )
    has_verdicts = isinstance(answer, list) and 0 < len(answer) <= MOST
    if not has_verdicts or not all(_sound(verdict, module.METRICS) for verdict in answer):
        raise bounded.Stumble(f"{score} gave {answer!r:.200}, which are no verdicts with finite values of its metrics")
    return [Verdict(*verdict) for verdict in answer]


def _sound(verdict: Any, metrics: Mapping[str, int]) -> bool:
    """Whether a worker's value has the form of a verdict. It may be anything: a response can take over its worker."""
    if not isinstance(verdict, list) or len(verdict) != len(Verdict._fields):
        return False
    metric, value, item, label, unparsed = verdict
    return (
        isinstance(metric, str)
        and metric in metrics
        and (value is None or (isinstance(value, int | float) and abs(value) <= LARGEST))
        and (item is None or (isinstance(item, int) and 0 <= item < MOST))
        and (label is None or (isinstance(label, str) and label.isprintable() and len(label) <= LONGEST_LABEL))
        and isinstance(unparsed, bool)
    )


def version(score: str) -> str:
    """A score's name, its version, and the isolation in which it judges on this machine, for the tables. Raises
    ImprintError if it needs a jail and the machine has none."""
    module = plugins.load("scores", score)
    isolated = module.JAILED or module.ISOLATES
    return f"{score} {module.VERSION}" + (f", isolated by {isolation.check()}" if isolated else "")


def warm(score: str) -> None:
    """Runs once in the worker: the score's slow imports."""
    plugins.load("scores", score).warm()


def ahead(score: str, settings: dict[str, Any], row: dict[str, Any], response: Any) -> None:
    """Runs in the worker before each call, without a limit of time: loads what the verdicts on a row need. It must not
    read the response, because it runs outside the child that a jailed worker makes for the call."""
    plugins.load("scores", score).ahead(row)


def judge(score: str, settings: dict[str, Any], row: dict[str, Any], response: Any) -> list[Verdict]:
    """Runs in the worker: a score's verdicts on a response."""
    module = plugins.load("scores", score)
    if module.ASKS == "loglikelihood":
        response = [Option(*option) for option in response]
    verdicts: list[Verdict] = module.score(row, response, plugins.settings("scores", score, settings))
    return verdicts
