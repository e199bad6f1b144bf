"""The space of COAT's items: which choices may stand together in a question.

An item is a right choice with its wrong choices. The items of one utility, task and variation are a `Group`, whose size
is counted exactly. All lists are sorted, so that a seed gives the same bytes everywhere.

No item has two right choices or none. In tasks u and 0, an object that the utility or one of its tasks lists is no
wrong choice for another one. In task 2, a configuration that is also listed as ideal (hot lettuce) is no choice at all,
and the right choice alone has the least penalty.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from imprint.datasets import _coat_counts
from imprint.datasets._coat_configs import Config
from imprint.datasets._coat_tables import Pair, Tables

Items = Literal["published", "even"]

# Task 1: wrong configurations of the ideal one's object / of other objects. Task 2: moderate / bad configurations.
VARIATIONS: dict[str, dict[str, tuple[int, int]]] = {
    "1": {
        **{"v1": (4, 0), "v2": (0, 4), "v3": (2, 2)},
        **{"v4": (3, 0), "v5": (0, 3), "v6": (1, 2), "v7": (2, 1)},
        **{"v8": (2, 0), "v9": (0, 2), "v10": (1, 1)},
        **{"v11": (1, 0), "v12": (0, 1)},
    },
    "2": {
        **{"v2": (3, 2), "v3": (2, 3), "v4": (4, 1), "v5": (1, 4), "v6": (5, 0)},
        **{"v7": (2, 0), "v8": (1, 1)},
        **{"v9": (2, 1), "v10": (1, 2), "v11": (3, 0)},
        **{"v12": (3, 1), "v13": (1, 3), "v14": (2, 2), "v15": (4, 0)},
    },
}


def options_of(task: str, variation: str) -> int:
    """How many choices the questions of a variation have."""
    return sum(VARIATIONS[task][variation]) + (task == "1")


class Answer(NamedTuple):
    """A right choice, and for its wrong choices (pool, how many to draw from it)."""

    choice: str | Config
    pools: tuple[tuple[list[Any], int], ...]

    def size(self) -> int:
        """How many different items have this right choice."""
        return math.prod(math.comb(len(pool), count) for pool, count in self.pools)


class Group(NamedTuple):
    """The items of one utility, task and variation. `published` is the number of questions that the authors' generator
    asks of it."""

    pair: Pair  # (utility, task), or (utility, "")
    variation: str
    answers: list[Answer]
    size: int
    published: int

    def item(self, index: int) -> list[Any]:
        """The choices of one item, the right one first. Every index below `size` gives another item."""
        for answer in self.answers:
            size = answer.size()
            if index < size:
                choices = [answer.choice]
                for pool, count in answer.pools:
                    index, rank = divmod(index, math.comb(len(pool), count))
                    choices += _combination(pool, count, rank)
                return choices
            index -= size
        raise IndexError(index)

    def with_any_answer(self, rng: random.Random) -> list[Any]:
        """A random item, each right choice equally often, however many items it has."""
        answer = rng.choice([answer for answer in self.answers if answer.size()])
        return [answer.choice, *(wrong for pool, count in answer.pools for wrong in rng.sample(pool, count))]


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


def _object_answers(tables: Tables, utility: str, right: list[str], options: int, near: list[str]) -> list[Answer]:
    """Right objects against `near` ones. If these are too few, the others are objects that neither the utility nor one
    of its tasks lists."""
    fits = {*tables.objects[utility], *(o for (u, _), names in tables.oracle.items() if u == utility for o in names)}
    far = sorted({name for names in tables.objects.values() for name in names} - fits)
    n_near = min(options - 1, len(near))
    return [Answer(name, ((near, n_near), (far, options - 1 - n_near))) for name in sorted(right)]


def wrong_configs(tables: Tables, pair: Pair, items: Items) -> list[Config]:
    """The wrong choices of task 1: as published, every possible configuration of an oracle object that is not ideal;
    with even items, those that the tables list as sub-optimal. Of the 6,031 published ones, 19 cost nothing by the
    schema of penalties; they are wrong because the authors do not list them as ideal."""
    if items == "even":
        return sorted({*tables.moderate[pair], *tables.bad[pair]} - set(tables.ideal[pair]))
    possible = {config for name in tables.oracle[pair] for config in tables.possible[name]}
    return sorted(possible - set(tables.ideal[pair]))


def _ideal_answers(tables: Tables, pair: Pair, same: int, other: int, items: Items) -> list[Answer]:
    """Each ideal configuration against wrong ones of its own object and of the other oracle objects."""
    wrong = wrong_configs(tables, pair, items)
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
    totals = {c: total for c, total in sorted(tables.moderate[pair].items()) if c not in tables.ideal[pair]}
    worst = sorted(set(tables.bad[pair]) - set(tables.ideal[pair]))
    return [
        Answer(config, (([c for c, other in totals.items() if other > total], moderate - 1), (worst, bad)))
        for config, total in totals.items()
    ]


def groups(tables: Tables, task: str, options: int, items: Items, variation: str | None = None) -> list[Group]:
    """The space of items, in a fixed order, without empty groups. With a `variation`, that one alone."""
    return [group for group in _groups(tables, task, options, items, variation) if group.size]


def _groups(tables: Tables, task: str, options: int, items: Items, only: str | None) -> Iterator[Group]:
    if task == "u":
        questions = _coat_counts.of_utilities(tables)
        for utility, names in sorted(tables.objects.items()):
            answers = _object_answers(tables, utility, names, options, [])
            yield _group((utility, ""), "", answers, questions[utility])
    elif task == "0":
        of_pairs = _coat_counts.of_objects(tables, options)
        for pair, names in sorted(tables.oracle.items()):
            near = sorted(set(tables.objects[pair[0]]) - set(names))
            yield _group(pair, "", _object_answers(tables, pair[0], names, options, near), of_pairs[pair])
    else:
        named = [name for name in VARIATIONS[task] if options_of(task, name) == options and only in (None, name)]
        of_configs = _coat_counts.of_configs(tables)
        for pair in sorted(tables.oracle):
            for variation in named:
                first, second = VARIATIONS[task][variation]
                if task == "1":
                    answers = _ideal_answers(tables, pair, first, second, items)
                    yield _group(pair, variation, answers, of_configs[pair])
                else:
                    answers = _moderate_answers(tables, pair, first, second)
                    most = _coat_counts.most_of_moderate(tables, pair, first, second)
                    yield _group(pair, variation, answers, min(of_configs[pair], most))


def _group(pair: Pair, variation: str, answers: list[Answer], published: int) -> Group:
    return Group(pair, variation, answers, sum(answer.size() for answer in answers), published)
