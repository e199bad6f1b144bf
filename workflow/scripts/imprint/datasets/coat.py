"""COAT's four questions, generated from its tables (arXiv 2311.13577): which object, and in which physical state?

Task u asks for an object for a utility, 0 for an object for a utility and a task, 1 for the ideal configuration, 2 for
the best configuration when none is ideal. Example of task 2: "the dirty, free ceramic mug, light, hot" (50) beats "the
clean, occupied ceramic mug, light, hot" (80). In an item of task 2 exactly one choice has the least penalty. The text
of a choice holds neither ids nor penalties.

With `items: published` the questions are distributed as the authors' generator distributes them. Like theirs, the draw
may repeat an item. Questions with two right choices or with none are not asked (at most 0.5% of theirs), and the places
of the right choices are balanced. The words are ours. The authors' questions themselves are read by `coat_questions`.

An answer that names no choice is wrong. The authors' evaluation asks again up to ten times, and then counts a random
letter as the answer.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from imprint.datasets import _coat_tables, _coat_wording
from imprint.datasets._coat_asking import Asked, Question, row
from imprint.datasets._coat_configs import Config
from imprint.datasets._coat_items import VARIATIONS, Group, Items, groups, options_of
from imprint.datasets._coat_tables import Tables
from imprint.runtime.errors import ImprintError


class Settings(Asked):
    """What to ask, how often, and from which tables."""

    tables: str = Field("bundled", description="`bundled`, or the catalog entry that holds COAT's files")
    items: Items = Field(
        "even",
        description="`published`: as many questions on each utility and task as the authors' generator asks; the wrong "
        "choices of task 1 are all possible configurations of its objects that are not ideal. `even`: different items, "
        "spread evenly over utilities, tasks and variations; the wrong choices of task 1 are the sub-optimal "
        "configurations. Even items reward other rules, so scores on them are not those of COAT",
    )
    options: int | None = Field(
        None, ge=2, le=5, description="choices in a question, of all variations that have so many; 1/options is chance"
    )
    variation: str | None = Field(
        None, description="tasks 1 and 2, in place of `options`: one variation, `v1` to `v12` or `v2` to `v15`"
    )
    n: int | None = Field(
        None, gt=0, description="number of questions; null asks as many as the authors, with `items: published` alone"
    )
    seed: int = Field(0, description="another seed draws other questions and another order of the choices")

    @model_validator(mode="after")
    def _is_complete(self) -> Settings:
        if (self.options is None) == (self.variation is None):
            raise ValueError("write exactly one of `options` and `variation`")
        named = VARIATIONS.get(self.task, {})
        if self.variation is not None and self.variation not in named:
            choice = f"one of {', '.join(named)}" if named else f'`options`, since task "{self.task}" has no others'
            raise ValueError(f"variation: found '{self.variation}'; write {choice}")
        if self.n is None and self.items == "even":
            raise ValueError("n: even items need a number; write n, or `items: published`")
        return self

    def choices(self) -> int:
        """The number of choices in a question."""
        return self.options or options_of(self.task, str(self.variation))


def files(settings: Settings) -> str:
    """The folder under resources/, or the catalog entry, whose files `rows` needs."""
    return "bundled/coat" if settings.tables == "bundled" else settings.tables


def _even(space: list[Group], n: int, rng: random.Random) -> list[tuple[Group, list[Any]]]:
    """n different items, as even over the groups as their sizes allow."""
    order = rng.sample(range(len(space)), len(space))
    taken: Counter[int] = Counter()
    while taken.total() < n:
        for number in order:
            if taken.total() < n and taken[number] < space[number].size:
                taken[number] += 1
    drawn = [(space[g], index) for g in sorted(taken) for index in rng.sample(range(space[g].size), taken[g])]
    rng.shuffle(drawn)
    return [(group, group.item(index)) for group, index in drawn]


def _published(space: list[Group], n: int, task: str, rng: random.Random) -> list[tuple[Group, list[Any]]]:
    """n of the authors' questions. Each right choice of a pair is asked equally often; in task 2, each set of choices
    that has one best choice."""
    asked = rng.sample([group for group in space for _ in range(group.published)], n)
    return [
        (group, group.item(rng.randrange(group.size)) if task == "2" else group.with_any_answer(rng)) for group in asked
    ]


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """The questions, as `_coat_asking.row` describes them.

    Raises ImprintError if the tables give fewer than n questions, or if no question is left with hidden states."""
    tables = _coat_tables.read(paths)
    options = settings.choices()
    space = groups(tables, settings.task, options, settings.items, settings.variation)
    available = sum(group.size if settings.items == "even" else group.published for group in space)
    n = settings.n or available
    if n > available:
        raise ImprintError(
            f"the COAT tables '{settings.tables}' give {available} {settings.items} questions of task {settings.task} "
            f"with {options} options, but n is {n}; write n: {available} or less"
        )
    rng = random.Random(f"coat/{settings.task}/{settings.variation or options}/{settings.seed}")
    items = _even(space, n, rng) if settings.items == "even" else _published(space, n, settings.task, rng)
    # Each place holds the right choice equally often, so that always choosing one place scores exactly chance.
    places = [number % options for number in range(n)]
    rng.shuffle(places)
    # The states have a generator of their own, so that the items are those that `states: shown` has.
    dealing = random.Random(f"coat/states/{settings.seed}")
    asked = 0
    for (group, (right, *wrong)), place in zip(items, places, strict=True):
        rng.shuffle(wrong)
        choices = [*wrong[:place], right, *wrong[place:]]
        made = row(settings, _question(settings.task, tables, group, choices, place), dealing)
        if made is not None:
            asked += 1
            yield made
        elif settings.states != "hidden":
            raise ImprintError(f"{group.pair}: two of the choices {choices} read the same; rename one")
    if not asked:
        raise ImprintError(
            "none of the questions has choices of different objects; with `states: hidden` write a variation that has "
            "them, such as v12 of task 1 or v8 of task 2"
        )


def _question(task: str, tables: Tables, group: Group, choices: list[Any], place: int) -> Question:
    utility, job = group.pair
    penalties = None
    if isinstance(choices[place], Config):
        ideal = tables.ideal[group.pair]
        penalties = [(0, 0) if c in ideal else _coat_tables.penalty(tables, group.pair, c) for c in choices]
    start = _coat_wording.start(task, utility, job)
    return Question(start, utility, choices, place, penalties, group.variation)
