"""How many questions COAT's authors ask of each utility and task, as their generators count them (task_u_dataset_gen.py
and task_0-1-2_dataset_gen.py of Ayush8120/COAT-code).

Questions are shared out in proportion to a utility's objects (tasks u and 0), or to a pair's sub-optimal configurations
(tasks 1 and 2), and rounded down. What rounding leaves over goes to the last utility, or one by one to the first pairs.
"First" and "last" are in the order of the authors' files.
"""

from __future__ import annotations

import math

from imprint.datasets._coat_tables import Pair, Tables

UTILITY_QUESTIONS = 500  # of task u, for each number of choices
OBJECT_QUESTIONS = 10_000  # of task 0, before the most of each pair
CONFIG_QUESTIONS = 5_000  # of tasks 1 and 2, for each variation
NO_LIMIT = 10_000


def _by_objects(tables: Tables, questions: int) -> dict[str, int]:
    listed = sum(map(len, tables.objects.values()))
    counts = {utility: int(len(names) / listed * questions) for utility, names in tables.objects.items()}
    counts[list(counts)[-1]] += questions - sum(counts.values())
    return counts


def of_utilities(tables: Tables) -> dict[str, int]:
    """Task u: questions by utility."""
    return _by_objects(tables, UTILITY_QUESTIONS)


def of_objects(tables: Tables, options: int) -> dict[Pair, int]:
    """Task 0: questions by (utility, task). The tasks of a utility share its questions; the last one gets the rest. A
    pair is asked at most as many questions as there are sets of wrong choices from its own utility."""
    counts = {}
    for utility, questions in _by_objects(tables, OBJECT_QUESTIONS).items():
        pairs = [pair for pair in tables.oracle if pair[0] == utility]
        for pair in pairs:
            share = questions // len(pairs)
            if pair == pairs[-1]:
                share = questions - share * (len(pairs) - 1)
            wrong = len(tables.objects[utility]) - len(tables.oracle[pair])
            counts[pair] = min(share, math.comb(wrong, options - 1) if wrong >= options - 1 else NO_LIMIT)
    return counts


def of_configs(tables: Tables) -> dict[Pair, int]:
    """Tasks 1 and 2: questions by (utility, task), of each variation."""
    sizes = {pair: len(tables.moderate[pair]) + len(tables.bad[pair]) for pair in tables.oracle}
    listed = sum(sizes.values())
    counts = {pair: int(size / listed * CONFIG_QUESTIONS) for pair, size in sizes.items()}
    each, first = divmod(CONFIG_QUESTIONS - sum(counts.values()), len(counts))
    return {pair: count + each + (place < first) for place, (pair, count) in enumerate(counts.items())}


def most_of_moderate(tables: Tables, pair: Pair, moderate: int, bad: int) -> int:
    """Task 2: a pair is asked at most as many questions of a variation as there are sets of its configurations, also
    of those without one best choice."""
    sizes = len(tables.moderate[pair]), len(tables.bad[pair])
    if sizes[0] < moderate or sizes[1] < bad:
        return NO_LIMIT
    return math.comb(sizes[0], moderate) * math.comb(sizes[1], bad)
