"""COAT's four questions, generated from its tables (arXiv 2311.13577): which object, and in which physical state?

Task u asks for an object for a utility, 0 for an object for a utility and a task, 1 for the ideal configuration, 2 for
the best configuration when none is ideal. Example of task 2: "the dirty, free ceramic mug, light, hot" (50) beats "the
clean, occupied ceramic mug, light, hot" (80). In an item of task 2 exactly one choice has the least penalty. The text
of a choice holds neither ids nor penalties.

The tables define a space of items, whose size is counted exactly. The n items are drawn from it without repetition,
spread evenly over utilities, tasks and variations. All draws are from sorted lists, so a seed gives the same bytes
everywhere.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from imprint.datasets import _coat_tables, _coat_wording
from imprint.datasets._coat_tables import Config, Pair, Tables
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict

# Task 1: wrong configurations of the ideal one's object / of other objects. Task 2: moderate / bad configurations.
MIXES: dict[str, dict[int, tuple[tuple[int, int], ...]]] = {
    "1": {
        2: ((1, 0), (0, 1)),
        3: ((2, 0), (0, 2), (1, 1)),
        4: ((3, 0), (0, 3), (1, 2), (2, 1)),
        5: ((4, 0), (0, 4), (2, 2)),
    },
    "2": {
        2: ((2, 0), (1, 1)),
        3: ((2, 1), (1, 2), (3, 0)),
        4: ((3, 1), (1, 3), (2, 2), (4, 0)),
        5: ((3, 2), (2, 3), (4, 1), (1, 4), (5, 0)),
    },
}


class Settings(Strict):
    """What to ask, how often, and from which tables."""

    tables: str = Field("bundled", description="`bundled`, or the catalog entry that holds COAT's files")
    task: Literal["u", "0", "1", "2"] = Field(
        description='"u" object for a utility, "0" object for a task, "1" ideal configuration, "2" best sub-optimal one'
    )
    options: int = Field(ge=2, le=5, description="choices in a question; 1/options is chance")
    n: int = Field(gt=0, description="number of questions")
    seed: int = Field(0, description="another seed draws other questions and another order of the choices")
    ask: Literal["options", "json"] = Field(
        "options",
        description="`options` to score the choices by log-likelihood, `json` to ask for JSON with a letter",
    )
    hint: bool = Field(False, description="task 2 only: say that cleaning takes less time than waiting")

    @model_validator(mode="after")
    def _hint(self) -> Settings:
        if self.hint and self.task != "2":
            raise ValueError('`hint` belongs to task "2"; remove it or write task: "2"')
        return self


def files(settings: Settings) -> str:
    """The folder under resources/, or the catalog entry, whose files `rows` needs."""
    return "bundled/coat" if settings.tables == "bundled" else settings.tables


class Answer(NamedTuple):
    """A right choice, and for its wrong choices (pool, how many to draw from it)."""

    choice: str | Config
    pools: tuple[tuple[list[Any], int], ...]

    def size(self) -> int:
        """How many different items have this right choice."""
        return math.prod(math.comb(len(pool), count) for pool, count in self.pools)


class Group(NamedTuple):
    """The items of one utility, task and variation; the unit over which the draw is spread."""

    pair: Pair  # (utility, task), or (utility, "")
    variation: str
    answers: list[Answer]
    size: int


def _combination(pool: list[Any], count: int, index: int) -> list[Any]:
    """The combination of `count` members of `pool` that has this index in lexicographic order."""
    chosen: list[Any] = []
    for place, member in enumerate(pool):
        if len(chosen) == count:
            break
        with_member = math.comb(len(pool) - place - 1, count - len(chosen) - 1)
        if index < with_member:
            chosen.append(member)
        else:
            index -= with_member
    return chosen


def item(group: Group, index: int) -> list[Any]:
    """The choices of one item of a group, the right one first. Every index below `group.size` gives another item."""
    for answer in group.answers:
        size = answer.size()
        if index < size:
            choices = [answer.choice]
            for pool, count in answer.pools:
                index, rank = divmod(index, math.comb(len(pool), count))
                choices += _combination(pool, count, rank)
            return choices
        index -= size
    raise IndexError(index)


def _object_answers(tables: Tables, utility: str, right: list[str], options: int, near: list[str]) -> list[Answer]:
    """Right objects against `near` ones. If these are too few, the others are objects that neither the utility nor one
    of its tasks lists."""
    fits = {*tables.objects[utility], *(o for (u, _), names in tables.oracle.items() if u == utility for o in names)}
    far = sorted({name for names in tables.objects.values() for name in names} - fits)
    n_near = min(options - 1, len(near))
    return [Answer(name, ((near, n_near), (far, options - 1 - n_near))) for name in sorted(right)]


def _ideal_answers(tables: Tables, pair: Pair, same: int, other: int) -> list[Answer]:
    """Each ideal configuration against sub-optimal ones of its own object and of the other oracle objects."""
    wrong = sorted({*tables.moderate[pair], *tables.bad[pair]} - set(tables.ideal[pair]))
    return [
        Answer(
            ideal,
            (
                ([c for c in wrong if c.object_name == ideal.object_name], same),
                ([c for c in wrong if c.object_name != ideal.object_name], other),
            ),
        )
        for ideal in sorted(tables.ideal[pair])
    ]


def _moderate_answers(tables: Tables, pair: Pair, moderate: int, bad: int) -> list[Answer]:
    """Each moderate configuration against moderate ones that cost more, and bad ones."""
    # One published configuration (hot lettuce) is both ideal and sub-optimal, so it cannot be a choice.
    totals = {c: total for c, total in sorted(tables.moderate[pair].items()) if c not in tables.ideal[pair]}
    worst = sorted(set(tables.bad[pair]) - set(tables.ideal[pair]))
    return [
        Answer(config, (([c for c, other in totals.items() if other > total], moderate - 1), (worst, bad)))
        for config, total in totals.items()
    ]


def groups(tables: Tables, task: str, options: int) -> list[Group]:
    """The space of items, in a fixed order, without empty groups."""
    items: list[tuple[Pair, str, list[Answer]]] = []
    if task == "u":
        for utility, names in sorted(tables.objects.items()):
            items.append(((utility, ""), "", _object_answers(tables, utility, names, options, [])))
    elif task == "0":
        for pair, names in sorted(tables.oracle.items()):
            near = sorted(set(tables.objects[pair[0]]) - set(names))
            items.append((pair, "", _object_answers(tables, pair[0], names, options, near)))
    else:
        answers = _ideal_answers if task == "1" else _moderate_answers
        for pair in sorted(tables.oracle):
            for first, second in MIXES[task][options]:
                items.append((pair, f"{first},{second}", answers(tables, pair, first, second)))
    sized = [Group(pair, variation, rights, sum(right.size() for right in rights)) for pair, variation, rights in items]
    return [group for group in sized if group.size]


def _draw(space: list[Group], n: int, rng: random.Random) -> list[tuple[Group, int]]:
    """n different items, as even over the groups as their sizes allow."""
    order = rng.sample(range(len(space)), len(space))
    taken: Counter[int] = Counter()
    while taken.total() < n:
        for number in order:
            if taken.total() < n and taken[number] < space[number].size:
                taken[number] += 1
    return [(space[g], index) for g in sorted(taken) for index in rng.sample(range(space[g].size), taken[g])]


def rows(settings: Settings, paths: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """Questions with reference {"options", "answer", "penalty", "bad", "names"}: the choices' texts, the index of the
    right one, the configurations' total penalties (None in tasks u and 0), whether each choice is bad (a wrong object;
    in tasks 1 and 2 a total of 500 or more), and the objects' names in words.

    Raises ImprintError if the tables give fewer than n questions."""
    tables = _coat_tables.read(paths)
    space = groups(tables, settings.task, settings.options)
    available = sum(group.size for group in space)
    if settings.n > available:
        raise ImprintError(
            f"the COAT tables '{settings.tables}' give {available} different questions of task {settings.task} with "
            f"{settings.options} options, but n is {settings.n}; write n: {available} or less"
        )
    rng = random.Random(f"coat/{settings.task}/{settings.options}/{settings.seed}")
    drawn = _draw(space, settings.n, rng)
    rng.shuffle(drawn)
    # Each place holds the right choice equally often, so that always choosing one place scores exactly chance.
    places = [number % settings.options for number in range(settings.n)]
    rng.shuffle(places)
    for (group, index), place in zip(drawn, places, strict=True):
        right, *wrong = item(group, index)
        rng.shuffle(wrong)
        yield _row(settings, tables, group, [*wrong[:place], right, *wrong[place:]], place)


def _row(settings: Settings, tables: Tables, group: Group, choices: list[Any], place: int) -> dict[str, Any]:
    utility, job = group.pair
    if isinstance(choices[place], Config):
        texts = [_coat_wording.config_text(config) for config in choices]
        names = [_coat_wording.object_text(config.object_name) for config in choices]
        ideal = dict.fromkeys(tables.ideal[group.pair], 0)
        totals = {**tables.moderate[group.pair], **tables.bad[group.pair], **ideal}
        cost: list[int] | None = [totals[config] for config in choices]
        bad = [totals[config] >= _coat_tables.BAD for config in choices]
    else:
        names = [_coat_wording.object_text(name) for name in choices]
        texts = [f"the {name}" for name in names]
        cost, bad = None, [number != place for number in range(len(choices))]
    if len(set(texts)) < len(texts):
        raise ImprintError(f"{utility} > {job}: two choices read the same ({'; '.join(texts)}); rename one")
    user = _coat_wording.question(settings.task, utility, job or None, texts, settings.ask, settings.hint)
    if settings.ask == "options":
        texts = [_coat_wording.answer_text(text) for text in texts]
    strata = {"task": settings.task, "options": settings.options, "utility": utility}
    # The cluster is the utility. In task u it decides the prompt. In task 0 the choices are the utility's objects,
    # whatever the task is. In tasks 1 and 2 the tasks of a utility share objects, and in the published tables more than
    # half of their configurations.
    return {
        "messages": [{"role": "user", "content": user}],
        "reference": {"options": texts, "answer": place, "penalty": cost, "bad": bad, "names": names},
        "fields": {},
        "strata": {**strata, "variation": group.variation} if group.variation else strata,
        "cluster": utility,
    }
