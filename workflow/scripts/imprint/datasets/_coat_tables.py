"""COAT's ground truth (arXiv 2311.13577): which object does a job, and in which physical state it is worth using.

The tables are the JSON files of com-phy-affordance/COAT, or our own in the same structures. Every row is checked when
it is read. The penalties of the sub-optimal configurations are computed again from the schema, which was recovered from
the published rows; the constants below name the rows that do not follow it. If `pouch_suboptimal.json` is missing, its
rows are derived from the schema. Example: a free, dirty mug at the ideal temperature costs 50, and 200 more if its
material is in the lower half of the list; an object that is broken and in use for good costs 1,000.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imprint.datasets import _coat_configs
from imprint.datasets._coat_configs import PENALTIES, VALUES, Config
from imprint.datasets._coat_file import File
from imprint.runtime.errors import ImprintError

USE = {"free": 0, "reversible-using": 80, "irreversible-using": 500}
CONDITION = {"clean": 0, "dirty": 50, "broken": 500}
OFF_TEMPERATURE = 100
BAD_MATERIAL = 500
LOWER_HALF = 200
MIDDLE = {3: 20, 5: 30, 7: 40}
LEAST, BAD = 30, 500  # moderate totals are 30..430, bad ones start at 500
FILES = (
    *("utilities.json", "objects.json", "tasks.json", "oracle.json", "possible_configurations_v1.json"),
    *("pouch_config_oracle.json", "material_preference.json"),
)
SUBOPTIMAL = "pouch_suboptimal.json"

# The published rows that do not follow the schema. In the one task of `eating`, temperature costs 30 a step away from
# the preferred one; a metal Fork for `breaking` carries a material penalty of 200 although metal is its only material.
STEPS_TASK = ("eating", "giving raghav something hot to eat")
STEPS = {"Egg": "Hot", "Potato": "Hot", "Bread": "Hot", "Lettuce": "Cold"}
STEP_ROWS = 56
FORK_TASKS = tuple(
    ("breaking", task) for task in ("cooking & serving fried egg", "cooking & serving omlette", "crack eggs")
)
FORK_ROWS = 6  # in each of the three tasks


Pair = tuple[str, str]


@dataclass
class Tables:
    """The checked tables. Most are by (utility, task): oracle objects, ideal configurations, and the total penalties of
    the sub-optimal ones. `objects` and `oracle` are in the order of objects.json and tasks.json, on which the authors'
    numbers of questions depend. `materials` has (good, bad) materials by (utility, task, object). `rows` counts the
    sub-optimal rows: all (`read`), and those whose `time` or `material` penalty follows the schema."""

    objects: dict[str, list[str]] = field(default_factory=dict)
    oracle: dict[Pair, list[str]] = field(default_factory=dict)
    possible: dict[str, list[Config]] = field(default_factory=dict)
    ideal: dict[Pair, list[Config]] = field(default_factory=dict)
    materials: dict[tuple[str, str, str], tuple[list[str], list[str]]] = field(default_factory=dict)
    moderate: dict[Pair, dict[Config, int]] = field(default_factory=dict)
    bad: dict[Pair, dict[Config, int]] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)

    def temperatures(self, pair: Pair, name: str) -> set[str]:
        """The temperatures of an object's ideal configurations in a task."""
        return {config.temperature for config in self.ideal[pair] if config.object_name == name}


def schema_penalty(tables: Tables, pair: Pair, config: Config) -> tuple[int, int]:
    """(time penalty, material penalty) of a configuration by the schema alone."""
    good, bad = tables.materials[*pair, config.object_name]
    time = USE[config.already_in_use] + CONDITION[config.condition]
    time += 0 if config.temperature in tables.temperatures(pair, config.object_name) else OFF_TEMPERATURE
    if config.material in bad:
        return time, BAD_MATERIAL
    place, length = good.index(config.material), len(good)
    if length == 1:
        return time, 0
    if length % 2 and place == length // 2:
        return time, MIDDLE[length]
    return time, LOWER_HALF if place < length // 2 else 0


def penalty(tables: Tables, pair: Pair, config: Config) -> tuple[int, int]:
    """(time penalty, material penalty) of a configuration by the schema and the published exceptions to it."""
    time, material = schema_penalty(tables, pair, config)
    if pair == STEPS_TASK and config.object_name in STEPS:
        scale = VALUES["temperature"]
        steps = abs(scale.index(config.temperature) - scale.index(STEPS[config.object_name]))
        time = USE[config.already_in_use] + CONDITION[config.condition] + 30 * steps
    if pair in FORK_TASKS and (config.object_name, config.material) == ("Fork", "Metal"):
        material = LOWER_HALF
    return time, material


def _possible_config(
    file: File, row: Any, extra: tuple[str, ...], tables: Tables, objects: list[str], where: str
) -> Config:
    """A configuration of one of `objects` that `possible_configurations_v1.json` lists."""
    config = _coat_configs.checked(row, extra, f"{file.path}, {where}")
    if config.object_name not in objects:
        raise file.fail(f"{where}, object_name", config.object_name, f"one of {', '.join(objects)}")
    if config not in tables.possible.get(config.object_name, ()):
        raise file.fail(where, row, "a configuration of possible_configurations_v1.json")
    return config


def read(paths: dict[str, Path]) -> Tables:
    """Read and check the tables. `paths` maps the names in `FILES`, and optionally `SUBOPTIMAL`, to paths. Raises
    ImprintError with the place of a missing file or a row that is wrong."""
    missing = [name for name in FILES if name not in paths]
    if missing:
        present = ", ".join(sorted(paths)) or "nothing"
        raise ImprintError(f"the COAT tables lack {', '.join(missing)} (found: {present}); add them")
    utilities, objects, tasks, oracle, possible, ideal, materials = (File(paths[name]) for name in FILES)
    tables = Tables()
    listed = utilities.names(utilities.value, "the list")
    for utility, names in objects.keyed(objects.value, listed, "the file").items():
        tables.objects[utility] = objects.names(names, utility)
    right = oracle.keyed(oracle.value, listed, "the file")
    for utility, jobs in tasks.keyed(tasks.value, listed, "the file").items():
        chosen = oracle.keyed(right[utility], tasks.names(jobs, utility), utility)
        for task in jobs:
            tables.oracle[utility, task] = oracle.names(chosen[task], f"{utility} > {task}")
    all_objects = sorted({name for names in tables.objects.values() for name in names})
    _possible(tables, possible, all_objects)
    for (utility, task), names in tables.oracle.items():
        where = f"{utility} > {task}"
        if unknown := sorted(set(names) - set(all_objects)):
            raise oracle.fail(where, unknown, "objects that objects.json lists")
        jobs = [job for other, job in tables.oracle if other == utility]
        per_task = ideal.keyed(ideal.keyed(ideal.value, utilities.value, "the file")[utility], jobs, utility)
        tables.ideal[utility, task] = configs = []
        for number, row in enumerate(ideal.listed(per_task[task], where), 1):
            config = _possible_config(ideal, row, (), tables, names, f"{where}, row {number}")
            if (config.already_in_use, config.condition) != ("free", "clean") or config in configs:
                raise ideal.fail(f"{where}, row {number}", row, "a free and clean configuration, once")
            configs.append(config)
        if {config.object_name for config in configs} != set(names):
            covered = sorted({config.object_name for config in configs})
            raise ideal.fail(where, covered, f"an ideal configuration of each of {', '.join(names)}")
    _materials(tables, materials)
    if SUBOPTIMAL in paths:
        _suboptimal(tables, File(paths[SUBOPTIMAL]), utilities.value)
    else:
        derive(tables)
    return tables


def _possible(tables: Tables, file: File, all_objects: list[str]) -> None:
    seen: set[Config] = set()
    for number, row in enumerate(file.listed(file.value, "the file"), 1):
        config = _coat_configs.checked(row, ("id",), f"{file.path}, row {number}")
        if config.object_name not in all_objects or config in seen:
            raise file.fail(f"row {number}", row, "each configuration once, of an object that objects.json lists")
        seen.add(config)
        tables.possible.setdefault(config.object_name, []).append(config)
    if without := sorted(set(all_objects) - set(tables.possible)):
        raise file.fail("the file", f"no row for {', '.join(without)}", "a configuration of every object")


def _materials(tables: Tables, file: File) -> None:
    listed = file.value.get("mat_gt") if isinstance(file.value, dict) else None
    for concept in file.listed(listed, "mat_gt"):
        try:
            entries = [(concept["concept"], job["task"], job["items"]) for job in concept["tasks"]]
        except (TypeError, KeyError) as error:
            raise file.fail("mat_gt", concept, "entries {concept, tasks: [{task, items}]}") from error
        for utility, task, items in entries:
            where = f"{utility} > {task}"
            names = tables.oracle.get((str(utility), str(task)))
            if names is None or (utility, task, names[0]) in tables.materials:
                raise file.fail("mat_gt", where, "each utility and task that tasks.json has, once")
            for name, lists in file.keyed(items, names, where).items():
                lists = file.keyed(lists, ["good", "bad"], f"{where} > {name}")
                good = file.names(lists["good"], f"{where} > {name} > good")
                bad = file.listed(lists["bad"], f"{where} > {name} > bad")
                if set(good) & set(bad) or not {*good, *bad} <= set(VALUES["material"]):
                    raise file.fail(f"{where} > {name}", lists, "each material in one of `good` and `bad`")
                if len(good) % 2 and len(good) not in (1, *MIDDLE):
                    raise file.fail(f"{where} > {name} > good", good, "an even number of materials, or 1, 3, 5 or 7")
                missing = {config.material for config in tables.possible[name]} - {*good, *bad}
                if missing:
                    absent = f"no {sorted(missing)[0]}"
                    raise file.fail(f"{where} > {name}", absent, "every material that the object can have")
                tables.materials[utility, task, name] = (good, bad)
    for (utility, task), names in tables.oracle.items():
        if (utility, task, names[0]) not in tables.materials:
            raise file.fail("mat_gt", f"no {utility} > {task}", "an entry for every task")


def _suboptimal(tables: Tables, file: File, utilities: list[str]) -> None:
    """Read the sub-optimal rows, and check their penalties against the schema and the published exceptions."""
    steps: Counter[Pair] = Counter()
    forks: Counter[Pair] = Counter()
    for pair, names in tables.oracle.items():
        utility, task = pair
        jobs = [job for other, job in tables.oracle if other == utility]
        lists = file.keyed(file.keyed(file.value, utilities, "the file")[utility], jobs, utility)[task]
        lists = file.keyed(lists, ["moderate", "bad"], f"{utility} > {task}")
        for kind, store in (("moderate", tables.moderate), ("bad", tables.bad)):
            store[pair] = {}
            for number, row in enumerate(file.listed(lists[kind], f"{utility} > {task} > {kind}"), 1):
                where = f"{utility} > {task} > {kind}, row {number}"
                config = _possible_config(file, row, ("id", *PENALTIES), tables, names, where)
                time, material = penalty(tables, pair, config)
                if (row["time_penalty"], row["material_penalty"]) != (time, material):
                    written = (row["time_penalty"], row["material_penalty"])
                    raise file.fail(where, written, f"{time} for time and {material} for material, by the schema")
                low, high = (LEAST, BAD) if kind == "moderate" else (BAD, math.inf)
                if config in store[pair] or not low <= time + material < high:
                    raise file.fail(
                        where, row, "each row once, with a total of 30 to 499 if moderate, else of 500 and more"
                    )
                store[pair][config] = time + material
                schema_time, schema_material = schema_penalty(tables, pair, config)
                tables.rows.update({"read": 1, "time": schema_time == time, "material": schema_material == material})
                steps[pair] += schema_time != time
                forks[pair] += schema_material != material
    for counts, pairs, rows in ((steps, (STEPS_TASK,), STEP_ROWS), (forks, FORK_TASKS, FORK_ROWS)):
        for pair in pairs:
            if pair in tables.oracle and counts[pair] != rows:
                exceptions = f"{counts[pair]} rows that do not follow the schema"
                raise file.fail(" > ".join(pair), exceptions, f"the {rows} published ones")


def derive(tables: Tables) -> None:
    """Fill in `moderate` and `bad` by the schema: every possible configuration of an oracle object that is not ideal. A
    configuration that costs less than LEAST (a middling material and nothing else) is too near to the ideal for
    both."""
    for pair, names in tables.oracle.items():
        configs = [config for name in names for config in tables.possible[name]]
        totals = {c: sum(penalty(tables, pair, c)) for c in configs if c not in tables.ideal[pair]}
        tables.moderate[pair] = {c: total for c, total in totals.items() if LEAST <= total < BAD}
        tables.bad[pair] = {c: total for c, total in totals.items() if total >= BAD}
