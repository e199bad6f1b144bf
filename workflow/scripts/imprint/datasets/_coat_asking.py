"""How a COAT question becomes a row: its choices in words, with or without their states, and what a score and a rule
need to know of them. Generated questions and questions of a file are asked in the same way."""

from __future__ import annotations

import random
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from imprint.datasets import _coat_tables, _coat_wording
from imprint.datasets._coat_configs import Config
from imprint.runtime.plugins import Strict


class Asked(Strict):
    """What is asked, and how."""

    task: Literal["u", "0", "1", "2"] = Field(
        description='"u" object for a utility, "0" object for a task, "1" ideal configuration, "2" best sub-optimal one'
    )
    ask: Literal["options", "json"] = Field(
        "options",
        description="`options` leaves the choices out of the question and scores them by log-likelihood; `json` lists "
        "them under letters and asks for JSON with a letter, as published (utils.py of Ayush8120/COAT-code)",
    )
    hint: bool = Field(
        False,
        description="task 2 only: say that cleaning takes less time than waiting. The authors always say it",
    )
    states: Literal["shown", "hidden", "shuffled"] = Field(
        "shown",
        description="tasks 1 and 2. `hidden` and `shuffled` are controls: `hidden` names the objects alone, and keeps "
        "the questions whose objects differ; `shuffled` deals the five variables of the choices out to the choices "
        "anew. What is then answered above chance is answered without the states",
    )

    @model_validator(mode="after")
    def _fits_the_task(self) -> Asked:
        if self.hint and self.task != "2":
            raise ValueError('`hint` belongs to task "2"; remove it or write task: "2"')
        if self.states != "shown" and self.task in "u0":
            raise ValueError(f'the choices of task "{self.task}" have no states; remove `states` or write task: "1"')
        return self


class Question(NamedTuple):
    """A question: what opens it, and its choices in order, objects or configurations. `answer` is the index of the
    right choice. `penalties` has (time, material) of each configuration, None where they are not known."""

    start: str
    utility: str
    choices: list[str] | list[Config]
    answer: int
    penalties: list[tuple[int, int]] | None = None
    variation: str = ""


def _dealt(configs: list[Config], rng: random.Random) -> list[Config]:
    """The same objects in the same states, dealt out at random. Two choices of one object get different states."""
    while True:
        states = rng.sample(configs, len(configs))
        dealt = [state._replace(object_name=config.object_name) for config, state in zip(configs, states, strict=True)]
        if len(set(dealt)) == len(dealt):
            return dealt


def _texts(states: str, configs: list[Config], rng: random.Random) -> list[str]:
    if states == "hidden":
        return [f"the {_coat_wording.object_text(config.object_name)}" for config in configs]
    return [_coat_wording.config_text(c) for c in (_dealt(configs, rng) if states == "shuffled" else configs)]


def row(asked: Asked, question: Question, rng: random.Random) -> dict[str, Any] | None:
    """The dataset row of a question; None if two of its choices read the same. `reference` has the choices' texts, the
    index of the right one, the configurations' total penalties (`penalty`) and whether these are 500 or more (`bad`),
    both None where penalties are not known, and the objects' names in words. `fields` has the states that the choices
    truly have, and the two penalties of each."""
    configs = [choice for choice in question.choices if isinstance(choice, Config)]
    names = [_coat_wording.object_text(choice.object_name) for choice in configs] or [
        _coat_wording.object_text(str(choice)) for choice in question.choices
    ]
    texts = _texts(asked.states, configs, rng) if configs else [f"the {name}" for name in names]
    if len(set(texts)) < len(texts):
        return None
    user = _coat_wording.question(question.start, asked.task, texts, asked.ask, asked.hint)
    if asked.ask == "options":
        texts = [_coat_wording.answer_text(text) for text in texts]
    totals = [sum(pair) for pair in question.penalties] if question.penalties else None
    strata = {"task": asked.task, "options": len(texts), "utility": question.utility}
    return {
        "messages": [{"role": "user", "content": user}],
        "reference": {
            "options": texts,
            "answer": question.answer,
            "penalty": totals,
            "bad": [total >= _coat_tables.BAD for total in totals] if totals else None,
            "names": names,
        },
        "fields": {
            **({"states": [config._asdict() for config in configs]} if configs else {}),
            **({"penalties": [list(pair) for pair in question.penalties]} if question.penalties else {}),
        },
        "strata": {**strata, "variation": question.variation} if question.variation else strata,
        # The cluster is the utility. In task u it decides the prompt. In task 0 the choices are the utility's objects,
        # whatever the task is. In tasks 1 and 2 the tasks of a utility share objects, and in the published tables more
        # than half of their configurations.
        "cluster": question.utility,
    }
