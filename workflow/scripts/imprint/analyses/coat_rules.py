"""How often simple rules are right on COAT's questions of states (tasks 1 and 2). A model that is no better than a rule
need not have weighed what the rule ignores.

Each rule looks at one kind of thing, and takes the choice with the least of it. Where k choices share the least, one of
them is drawn, so the rule is right in 1/k of the draws. The null is chance, 1/choices. The rules read the states that
the choices truly have, whatever their text shows. The rules `least_time` and `best_material` read the penalties of the
tables: they show how much one of the two decides.

analyses: {rules: {coat_rules: [coat_ideal, coat_suboptimal]}}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

from pydantic import Field

from imprint.analyses import Analysis
from imprint.datasets import _coat_tables
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Inputs, Strict


class Settings(Strict):
    datasets: list[str] = Field(min_length=1, description="datasets of `coat` or `coat_questions`, of task 1 or 2")


def inputs(settings: Settings) -> Inputs:
    """The datasets."""
    return Inputs(datasets=tuple(settings.datasets))


def _state(state: dict[str, str]) -> int:
    """What use and condition cost, which is the same for every object, material and task."""
    return _coat_tables.USE[state["already_in_use"]] + _coat_tables.CONDITION[state["condition"]]


def _not_free_and_clean(state: dict[str, str]) -> int:
    return int((state["already_in_use"], state["condition"]) != ("free", "clean"))


OF_STATES: dict[str, Callable[[dict[str, str]], int]] = {
    "free_and_clean": _not_free_and_clean,
    "fewest_state_penalties": _state,
}
"""Rule -> what it takes the least of, from a choice's state alone."""
OF_PENALTIES = {"least_time": 0, "best_material": 1}
"""Rule -> which of a choice's two penalties, (time, material), it takes the least of."""


def costs(row: dict[str, Any]) -> dict[str, list[int]]:
    """Rule -> what each choice of a question costs by it. Rules of penalties are missing where the row has none."""
    states, penalties = row["fields"]["states"], row["fields"].get("penalties")
    by_state = {rule: [cost(state) for state in states] for rule, cost in OF_STATES.items()}
    if penalties is None:
        return by_state
    return by_state | {rule: [pair[part] for pair in penalties] for rule, part in OF_PENALTIES.items()}


def credit(costs: list[int], answer: int) -> float:
    """How often taking the least of `costs`, or any of equal ones, takes the choice `answer`."""
    least = min(costs)
    return 1 / costs.count(least) if costs[answer] == least else 0.0


def rows(job: Analysis) -> Iterator[dict[str, Any]]:
    """Rows of table `analyses`: the accuracy of each rule (`arm`) on each dataset (`other`). Raises ImprintError for a
    dataset without states."""
    for name, questions in job.inputs.datasets.items():
        if not all("states" in row["fields"] for row in questions):
            raise ImprintError(
                f"coat_rules: the dataset '{name}' has questions whose choices have no states; write datasets of "
                "`coat` or `coat_questions`, of task 1 or 2"
            )
        chance = fmean(1 / len(row["reference"]["options"]) for row in questions)
        answers = [row["reference"]["answer"] for row in questions]
        by_row = [costs(row) for row in questions]
        for rule in (*OF_STATES, *OF_PENALTIES):
            if all(rule in by_rule for by_rule in by_row):
                right = [credit(by_rule[rule], answer) for by_rule, answer in zip(by_row, answers, strict=True)]
                yield {"arm": rule, "other": name, "quantity": "accuracy", "value": fmean(right), "null": chance}
