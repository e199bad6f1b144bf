"""COAT: the self-checks on our own tables always, on the published ones where a mirror of public data is configured."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from pydantic import ValidationError

from imprint.analyses import coat_rules
from imprint.config import loading
from imprint.datasets import _coat_configs, _coat_counts, _coat_items, _coat_tables, _coat_wording, coat
from imprint.runtime.errors import ImprintError
from imprint.scoring import option_sets

ROOT = Path(__file__).parent.parent
BUNDLED = {path.name: path for path in sorted((ROOT / "resources/bundled/coat").iterdir())}


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The published files under the names that the fetch step gives them."""
    mirror = os.environ.get("IMPRINT_DATA_MIRROR")
    if not mirror or not (Path(mirror) / "coat").is_dir():
        pytest.skip("IMPRINT_DATA_MIRROR is not set to a folder with coat/, so COAT's published files are not read")
    folder = tmp_path_factory.mktemp("coat")
    for path in sorted((Path(mirror) / "coat").iterdir()):
        data = path.read_bytes()
        name = re.sub(r"^task-\d__", "", path.name)
        (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(data) if name.endswith(".gz") else data)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(params=["bundled", "published"])
def paths(request: pytest.FixtureRequest) -> dict[str, Path]:
    """Both table sets."""
    if request.param == "bundled":
        return BUNDLED
    found: dict[str, Path] = request.getfixturevalue("published")
    return found


def ask(paths: dict[str, Path], task: str, options: int, n: int = 60, **more: Any) -> list[dict[str, Any]]:
    return list(coat.rows(coat.Settings(task=task, options=options, n=n, **more), paths))


def test_bundled_size() -> None:
    tables = _coat_tables.read(BUNDLED)
    assert len(tables.objects) >= 10
    assert len({name for names in tables.objects.values() for name in names}) >= 40
    assert min(Counter(utility for utility, _ in tables.oracle).values()) >= 2
    assert min(len(names) for names in tables.oracle.values()) >= 2
    assert sum(path.stat().st_size for path in BUNDLED.values()) < 400_000
    assert all(utility in _coat_wording.PHRASES for utility in tables.objects)


def test_bundled_ideal_costs_nothing() -> None:
    tables = _coat_tables.read(BUNDLED)
    for pair, configs in tables.ideal.items():
        assert all(_coat_tables.penalty(tables, pair, config) == (0, 0) for config in configs)


def test_published_counts(published: dict[str, Path]) -> None:
    tables = _coat_tables.read(published)
    tasks = json.loads(published["tasks.json"].read_text())
    assert len(tables.objects) == 22 and set(tables.objects) <= set(_coat_wording.PHRASES)
    assert len({name for names in tables.objects.values() for name in names}) == 100
    assert sum(map(len, tables.objects.values())) == 166
    assert len({task for names in tasks.values() for task in names}) == 75 and len(tables.oracle) == 96
    assert sum(map(len, tables.oracle.values())) == len(tables.materials) == 252
    assert sum(map(len, tables.possible.values())) == 1584
    ideal = [config for configs in tables.ideal.values() for config in configs]
    assert Counter(config.temperature for config in ideal) == {"RoomTemp": 275, "Hot": 4, "Cold": 1}
    assert sum(map(len, tables.moderate.values())) == 1914 and sum(map(len, tables.bad.values())) == 2899
    assert tables.rows == {"read": 4813, "time": 4757, "material": 4795}
    assert sum(1 for names in tables.oracle.values() if len(names) == 1) == 21


def test_published_exceptions_are_asserted(published: dict[str, Path], tmp_path: Path) -> None:
    def without(broken: str) -> dict[str, Path]:
        value = json.loads(published["pouch_suboptimal.json"].read_text())
        if broken == "row":
            del value["eating"][_coat_tables.STEPS_TASK[1]]["moderate"][0]
            value["eating"][_coat_tables.STEPS_TASK[1]]["moderate"] = [
                row for row in value["eating"][_coat_tables.STEPS_TASK[1]]["moderate"] if row["object_name"] != "Egg"
            ]
        else:
            row = next(r for r in value["breaking"]["crack eggs"]["moderate"] if r["object_name"] == "Fork")
            row["material_penalty"] = 0
        path = tmp_path / f"{broken}.json"
        path.write_text(json.dumps(value))
        return {**published, "pouch_suboptimal.json": path}

    with pytest.raises(ImprintError, match=r"eating.*rows that do not follow the schema.*56"):
        _coat_tables.read(without("row"))
    with pytest.raises(ImprintError, match=r"breaking > crack eggs > moderate, row \d+: .* 200 for material"):
        _coat_tables.read(without("fork"))


def test_totals(paths: dict[str, Path]) -> None:
    tables = _coat_tables.read(paths)
    moderate = [total for rows in tables.moderate.values() for total in rows.values()]
    bad = [total for rows in tables.bad.values() for total in rows.values()]
    assert min(moderate) >= 30 and max(moderate) <= 430
    assert min(bad) >= 500 and max(bad) <= 1600


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (("free", "clean", "RoomTemp", "Ceramic"), (0, 0)),
        (("reversible-using", "dirty", "RoomTemp", "Ceramic"), (130, 0)),
        (("irreversible-using", "broken", "Hot", "Plastic"), (1100, 500)),
        (("free", "dirty", "Cold", "Metal"), (150, 200)),
        (("free", "clean", "RoomTemp", "Glass"), (0, 20)),
    ],
)
def test_schema(state: tuple[str, str, str, str], expected: tuple[int, int]) -> None:
    tables = _coat_tables.read(BUNDLED)
    use, condition, temperature, material = state
    config = _coat_configs.Config("Mug", "light", material, temperature, use, condition)
    assert _coat_tables.penalty(tables, ("holding_liquid", "serve hot tea to a guest"), config) == expected


@pytest.mark.parametrize("task", ["u", "0", "1", "2"])
@pytest.mark.parametrize("options", [2, 3, 4, 5])
def test_items(paths: dict[str, Path], task: str, options: int) -> None:
    rows = ask(paths, task, options)
    tables = _coat_tables.read(paths)
    assert len(rows) == 60
    texts = [json.dumps([row["messages"], sorted(row["reference"]["options"])]) for row in rows]
    assert len(set(texts)) == 60
    ideal = {_coat_wording.config_text(c) for configs in tables.ideal.values() for c in configs}
    for row in rows:
        reference = row["reference"]
        answer, penalty = reference["answer"], reference["penalty"]
        assert len(set(reference["options"])) == options
        assert row["strata"]["task"] == task and row["strata"]["options"] == options
        assert not re.search(r"penalty|\bid\b|\d{2,}", " ".join(reference["options"]))
        if task in "u0":
            # A wrong object is no more than wrong: a rate of bad answers would be 1 - accuracy.
            assert penalty is None and reference["bad"] is None and row["fields"] == {}
        else:
            assert penalty.count(min(penalty)) == 1 and penalty[answer] == min(penalty)
            assert [total >= 500 for total in penalty] == reference["bad"] and not reference["bad"][answer]
            assert [sum(pair) for pair in row["fields"]["penalties"]] == penalty
            assert [list(state) for state in row["fields"]["states"]] == [list(_coat_configs.Config._fields)] * options
            assert (penalty[answer] == 0) == (task == "1")
            # One wording for every choice: the same five variables in the same order.
            shape = re.compile(r"Use the (clean|dirty|broken), (free|occupied|used-up) [\w-]+ .+, [^,]+, [^,]+\.")
            assert all(shape.fullmatch(text) for text in reference["options"])
        # The policy that follows the penalties is always right, with no regret and nothing bad.
        found = {v.metric: v.value for v in option_sets.verdicts(reference, answer)}
        assert found["accuracy"] == 1 and found.get("bad_rate", 0) == 0 and found.get("regret", 0) == 0
        assert ("bad_rate" in found) == (task in "12")
    assert ideal


def test_task_2_has_no_ideal_configuration(paths: dict[str, Path]) -> None:
    tables = _coat_tables.read(paths)
    for group in _coat_items.groups(tables, "2", 3, "even"):
        ideal = set(tables.ideal[group.pair])
        for index in {0, group.size // 2, group.size - 1}:
            assert not ideal & set(group.item(index))


def test_every_index_is_another_item() -> None:
    tables = _coat_tables.read(BUNDLED)
    small = [g for task in "u012" for g in _coat_items.groups(tables, task, 2, "even") if g.size <= 400]
    assert len(small) > 50
    for group in small[::5]:
        items = [group.item(index) for index in range(group.size)]
        assert len({(item[0], *sorted(item[1:])) for item in items}) == group.size
        with pytest.raises(IndexError):
            group.item(group.size)


def test_answer_places_are_uniform() -> None:
    for options in (2, 3, 5):
        counts = Counter(row["reference"]["answer"] for row in ask(BUNDLED, "1", options, n=600))
        chi = sum((counts[place] - 600 / options) ** 2 / (600 / options) for place in range(options))
        assert chi < 1 and len(counts) == options
    # Among the wrong choices too, no place tells how bad a choice is.
    rows = ask(BUNDLED, "2", 3, n=900)
    worst = Counter(max(range(3), key=row["reference"]["penalty"].__getitem__) for row in rows)
    assert all(abs(worst[place] - 300) < 5 * math.sqrt(200) for place in range(3))


def test_utilities_are_covered_evenly() -> None:
    counts = Counter(row["strata"]["utility"] for row in ask(BUNDLED, "u", 3, n=64))
    assert set(counts.values()) == {4, 5}


@pytest.mark.parametrize("task", ["u", "0", "1", "2"])
@pytest.mark.parametrize("how", ["options", "json"])
def test_the_questions_of_a_utility_are_a_cluster(paths: dict[str, Path], task: str, how: str) -> None:
    rows = ask(paths, task, 3, n=300, ask=how)
    assert all(row["cluster"] == row["strata"]["utility"] for row in rows)
    clusters = {row["cluster"] for row in rows}
    assert len(clusters) == (14 if paths is BUNDLED else 22)
    prompts = {row["messages"][0]["content"] for row in rows}
    assert how == "json" or task != "u" or len(prompts) == len(clusters), "the utility decides the prompt of task u"


def test_tasks_of_a_utility_share_choices(published: dict[str, Path]) -> None:
    """Why the tasks of a utility are no clusters of their own."""
    tables = _coat_tables.read(published)
    of_utility: dict[str, list[Any]] = {}
    for (utility, _), configs in tables.moderate.items():
        of_utility.setdefault(utility, []).extend(configs)
    listed = sum(map(len, of_utility.values()))
    assert sum(len(set(configs)) for configs in of_utility.values()) < listed / 2


SCRIPT = """
import hashlib, json, sys
from pathlib import Path
from imprint.datasets import coat
paths = {p.name: p for p in Path(sys.argv[1]).iterdir()}
rows = [
    list(coat.rows(coat.Settings(task=t, options=2, n=40, seed=3, ask="json", items=items, states=states), paths))
    for t, states in (("u", "shown"), ("0", "shown"), ("1", "shuffled"), ("2", "hidden"))
    for items in ("even", "published")
]
print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())
"""


def test_same_bytes_under_two_hash_seeds() -> None:
    digests = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "workflow/scripts")}
        command = [sys.executable, "-c", SCRIPT, str(ROOT / "resources/bundled/coat")]
        digests.add(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
    rows = [
        ask(BUNDLED, task, 2, n=40, seed=3, ask="json", items=items, states=states)
        for task, states in (("u", "shown"), ("0", "shown"), ("1", "shuffled"), ("2", "hidden"))
        for items in ("even", "published")
    ]
    assert digests == {hashlib.sha256(json.dumps(rows).encode()).hexdigest() + "\n"}


def test_seed_and_wording() -> None:
    assert ask(BUNDLED, "0", 3, seed=1) != ask(BUNDLED, "0", 3, seed=2)
    row = ask(BUNDLED, "2", 3, n=1, ask="json", hint=True)[0]
    text = row["messages"][0]["content"]
    assert all(
        f"\n{letter}. {option}" in text for letter, option in zip("ABC", row["reference"]["options"], strict=True)
    )
    assert _coat_wording.HINT in text and '"answer"' in text and "\nD. " not in text
    plain = ask(BUNDLED, "2", 3, n=1)[0]["messages"][0]["content"]
    assert _coat_wording.HINT not in plain and "\n" not in plain
    assert _coat_wording.object_text("StoveBurner") == "stove burner" and _coat_wording.object_text("CD") == "CD"


def test_too_many_rows_says_how_many_there_are() -> None:
    available = sum(group.size for group in _coat_items.groups(_coat_tables.read(BUNDLED), "0", 2, "even"))
    assert len(ask(BUNDLED, "0", 2, n=available)) == available
    with pytest.raises(ImprintError, match=f"write n: {available} or less"):
        ask(BUNDLED, "0", 2, n=available + 1)
    asked = len(ask(BUNDLED, "u", 2, n=None, items="published"))
    with pytest.raises(ImprintError, match=f"{asked} published questions.*write n: {asked} or less"):
        ask(BUNDLED, "u", 2, n=asked + 1, items="published")


def test_settings() -> None:
    assert coat.files(coat.Settings(task="u", options=2, n=1)) == "bundled/coat"
    assert coat.files(coat.Settings(task="u", options=2, n=1, tables="coat")) == "coat"
    named = coat.Settings(task="1", variation="v6", items="published")
    assert named.choices() == 4 and coat.Settings(task="2", variation="v6", n=1).choices() == 5
    for wrong, message in (
        *(
            ({"options": 6}, "less than or equal"),
            ({"options": 1}, "greater than or equal"),
            ({"n": 0}, "greater than"),
        ),
        *(({"task": "3"}, "'u', '0', '1' or '2'"), ({"penalty": 1}, "penalty"), ({"hint": True}, "`hint` belongs to")),
        ({"states": "hidden"}, "no states"),
        ({"options": None}, "exactly one of `options` and `variation`"),
        ({"task": "1", "variation": "v6"}, "exactly one of `options` and `variation`"),
        ({"options": None, "variation": "v6"}, "write `options`"),
        ({"options": None, "variation": "v15", "task": "1"}, "write one of v1, .*, v12"),
        ({"n": None}, "even items need a number"),
    ):
        with pytest.raises(ValidationError, match=message):
            coat.Settings(**{"task": "u", "options": 2, "n": 1, **wrong})


# As published


def test_the_authors_counts(published: dict[str, Path]) -> None:
    """What their generators print, and what their loops over pairs come to."""
    tables = _coat_tables.read(published)
    assert len(_coat_items.VARIATIONS["1"]) == 12 and len(_coat_items.VARIATIONS["2"]) == 14
    assert sum(_coat_counts.of_utilities(tables).values()) == 500
    assert [sum(_coat_counts.of_objects(tables, k).values()) for k in (2, 3, 4, 5)] == [834, 3212, 5320, 6450]
    of_configs = _coat_counts.of_configs(tables)
    assert (sum(of_configs.values()), min(of_configs.values()), max(of_configs.values())) == (5000, 6, 354)
    assert sum(count for (utility, _), count in of_configs.items() if utility == "carrying") == 1980
    wrong = {pair: _coat_items.wrong_configs(tables, pair, "published") for pair in tables.oracle}
    assert sum(map(len, wrong.values())) == 6031
    never_even = {
        pair: len(set(configs) - set(_coat_items.wrong_configs(tables, pair, "even")))
        for pair, configs in wrong.items()
    }
    assert sum(never_even.values()) == 1219 and sum(map(bool, never_even.values())) == 45


SAME = ("v1", "v4", "v8", "v11")  # all choices of one object
OF_TASK_2 = {
    **{"v2": 4934, "v3": 4934, "v4": 4876, "v5": 4880, "v6": 4756, "v7": 4928, "v8": 5000},
    **{"v9": 5000, "v10": 5000, "v11": 4891, "v12": 4934, "v13": 4934, "v14": 5000, "v15": 4869},
}


def test_each_variation_has_as_many_questions_as_the_authors_files(published: dict[str, Path]) -> None:
    """The lengths of the files that their generator wrote when it was run on these tables (tests/coat_questions)."""
    tables = _coat_tables.read(published)

    def groups(task: str, variation: str) -> list[_coat_items.Group]:
        return _coat_items.groups(tables, task, _coat_items.options_of(task, variation), "published", variation)

    space = {name: groups("1", name) for name in _coat_items.VARIATIONS["1"]}
    assert {name: len(pairs) for name, pairs in space.items()} == {n: 96 if n in SAME else 75 for n in space}
    asked = {name: sum(group.published for group in pairs) for name, pairs in space.items()}
    assert asked == {name: 5000 if name in SAME else 4837 for name in space}
    assert {name: sum(g.published for g in groups("2", name)) for name in _coat_items.VARIATIONS["2"]} == OF_TASK_2


@pytest.mark.parametrize(("task", "options", "n"), [("u", 3, 500), ("0", 2, 834), ("1", 2, None), ("2", 2, None)])
def test_published_questions(published: dict[str, Path], task: str, options: int, n: int | None) -> None:
    tables = _coat_tables.read(published)
    rows = ask(published, task, options, n=None, items="published")
    assert n is None or len(rows) == n
    asked = Counter((row["strata"]["utility"], row["strata"].get("variation", "")) for row in rows)
    space = _coat_items.groups(tables, task, options, "published")
    expected: Counter[tuple[str, str]] = Counter()
    for group in space:
        expected[group.pair[0], group.variation] += group.published
    assert asked == +expected
    for row in rows:
        answer, penalty = row["reference"]["answer"], row["reference"]["penalty"]
        assert len(set(row["reference"]["options"])) == options
        assert penalty is None or penalty[answer] == min(penalty)
        # All but 19 of the 6,031 wrong configurations of task 1 cost something.
        assert task != "2" or penalty.count(min(penalty)) == 1


def test_a_smaller_number_is_a_sample_of_the_published_questions(published: dict[str, Path]) -> None:
    rows = ask(published, "2", 3, n=900, items="published")
    share = sum(row["strata"]["utility"] == "carrying" for row in rows) / 900
    assert abs(share - 0.396) < 4 * math.sqrt(0.24 / 900)
    assert {row["strata"]["variation"] for row in rows} == {"v9", "v10", "v11"}
    one = list(coat.rows(coat.Settings(task="2", variation="v10", items="published", n=50), published))
    assert {(row["strata"]["variation"], row["strata"]["options"]) for row in one} == {("v10", 3)}
    assert all(sorted(row["reference"]["bad"]) == [False, True, True] for row in one)


def test_each_ideal_configuration_is_asked_equally_often() -> None:
    tables = _coat_tables.read(BUNDLED)
    group = max(_coat_items.groups(tables, "1", 2, "published", "v11"), key=lambda group: len(group.answers))
    rng = random.Random(0)
    counts = Counter(group.with_any_answer(rng)[0] for _ in range(2000))
    expected = 2000 / len(group.answers)
    assert len(counts) == len(group.answers) > 1
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in counts.values())


def accuracy(rows: list[dict[str, Any]], rule: str) -> float:
    return fmean(coat_rules.credit(coat_rules.costs(row)[rule], row["reference"]["answer"]) for row in rows)


def test_a_rule_finds_published_items_harder_than_even_ones(published: dict[str, Path]) -> None:
    """Of the items that the authors' generator wrote, the rule that ignores object, material and task is right on
    0.835 in v1 of task 1, and on 0.387 in v6 of task 2."""

    def accuracy(task: str, variation: str, **more: Any) -> float:
        rows = coat.rows(coat.Settings(task=task, variation=variation, **more), published)
        cases = [(coat_rules.costs(row)["fewest_state_penalties"], row["reference"]["answer"]) for row in rows]
        return fmean(coat_rules.credit(costs, answer) for costs, answer in cases)

    assert accuracy("1", "v1", items="published") == pytest.approx(0.835, abs=0.02)
    assert accuracy("2", "v6", items="published") == pytest.approx(0.387, abs=0.02)
    assert accuracy("1", "v1", items="even", n=1500) == pytest.approx(0.957, abs=0.02)
    assert accuracy("2", "v6", items="even", n=1500) == pytest.approx(0.56, abs=0.03)


def test_hidden_and_shuffled_states(paths: dict[str, Path]) -> None:
    shown = ask(paths, "1", 3, n=200, ask="json")
    hidden = ask(paths, "1", 3, n=200, ask="json", states="hidden")
    shuffled = ask(paths, "1", 3, n=200, ask="json", states="shuffled")
    objects = [{state["object_name"] for state in row["fields"]["states"]} for row in shown]
    kept = [row for row, names in zip(shown, objects, strict=True) if len(names) == 3]
    assert 0 < len(kept) < 200
    same = ("answer", "penalty", "bad", "names")
    for row, other in (*zip(kept, hidden, strict=True), *zip(shown, shuffled, strict=True)):
        assert [row["reference"][key] for key in same] == [other["reference"][key] for key in same]
        assert row["fields"] == other["fields"] and row["strata"] == other["strata"]
    for row in hidden:
        assert row["reference"]["options"] == [f"the {name}" for name in row["reference"]["names"]]
    moved = 0
    for row, other in zip(shown, shuffled, strict=True):
        true, dealt = row["reference"]["options"], other["reference"]["options"]
        assert len(set(dealt)) == 3 and all(
            name in text for name, text in zip(row["reference"]["names"], dealt, strict=True)
        )
        assert sorted(text.split(", ", 1)[0] for text in true) == sorted(text.split(", ", 1)[0] for text in dealt)
        moved += true != dealt
    assert 100 < moved < 200, "one deal in six leaves all states in place"
    with pytest.raises(ImprintError, match=r"none of the questions has choices of different objects.*v12 of task 1"):
        list(coat.rows(coat.Settings(task="1", variation="v11", n=20, states="hidden"), paths))


def test_the_preset_asks_as_the_authors_do() -> None:
    config = loading.load([ROOT / "config/paper/coat.yaml"])
    controls = {"shown", "hidden", "shuffled"}
    settings = {name: data.settings for name, data in config.datasets.items() if name not in controls}
    assert {(s.task, s.options) for s in settings.values()} == {(t, k) for t in "u012" for k in (2, 3, 4, 5)}
    for each in settings.values():
        assert (each.tables, each.items, each.ask, each.states) == ("coat", "published", "json", "shown")
        assert each.n is None and each.variation is None and each.hint == (each.task == "2")
    assert {config.datasets[name].settings.states for name in controls} == controls
    assert {config.datasets[name].settings.variation for name in controls} == {"v12"}
    assert {name: ev.dataset for name, ev in config.evals.items()} == {name: name for name in config.datasets}
    for ev in config.evals.values():
        assert (ev.score.name, ev.samples, ev.temperature) == ("choice", 5, 0.7)
    assert set(config.arms) == {"base", "role_play"} and len(config.questions) == 4


def _edit(name: str, change: Any) -> Any:
    def edited(tmp_path: Path) -> dict[str, Path]:
        value = json.loads(BUNDLED[name].read_text())
        changed = change(value)
        path = tmp_path / name
        path.write_text(json.dumps(value if changed is None else changed))
        return {**BUNDLED, name: path}

    return edited


FIRST = ("heating_food", "brown two slices of bread")
BROKEN = {
    r"utilities\.json, the list: found \[\]": _edit("utilities.json", lambda v: []),
    r"utilities\.json, the list: .*each name once": _edit("utilities.json", lambda v: v + v[:1]),
    r"objects\.json, the file: found 'no entry mixing'": _edit("objects.json", lambda v: v.pop("mixing") and None),
    r"tasks\.json, cutting: found 3": _edit("tasks.json", lambda v: v.update(cutting=3)),
    r"oracle\.json, cutting: found 'unknown entry x'": _edit("oracle.json", lambda v: v["cutting"].update(x=["Mug"])),
    r"oracle\.json, heating_food > brown.*objects that objects\.json": _edit(
        "oracle.json", lambda v: v[FIRST[0]].update({FIRST[1]: ["Spaceship"]})
    ),
    r"possible_configurations_v1\.json, row 3, mass: found 'huge'": _edit(
        "possible_configurations_v1.json", lambda v: v[2].update(mass="huge")
    ),
    r"possible_configurations_v1\.json, row 1, condition: .*irreversible-using": _edit(
        "possible_configurations_v1.json", lambda v: v[0].update(condition="broken")
    ),
    r"possible_configurations_v1\.json, row 2: .*once": _edit(
        "possible_configurations_v1.json", lambda v: v[1].update(v[0])
    ),
    r"pouch_config_oracle\.json, heating_food > brown.*, row 1: .*keys": _edit(
        "pouch_config_oracle.json", lambda v: v[FIRST[0]][FIRST[1]][0].update(id=3)
    ),
    r"pouch_config_oracle\.json, heating_food > brown.*, row 1: .*free and clean": _edit(
        "pouch_config_oracle.json", lambda v: v[FIRST[0]][FIRST[1]][0].update(condition="dirty")
    ),
    r"pouch_config_oracle\.json, heating_food > brown.*ideal configuration of each": _edit(
        "pouch_config_oracle.json", lambda v: v[FIRST[0]][FIRST[1]].pop() and None
    ),
    r"material_preference\.json, mat_gt: found None": _edit("material_preference.json", lambda v: {}),
    r"material_preference\.json, mat_gt: .*no mixing": _edit("material_preference.json", lambda v: {"mat_gt": [
        c for c in v["mat_gt"] if c["concept"] != "mixing"
    ]}),
    r"material_preference\.json, heating_food > brown.* > Toaster: found 'no Plastic'": _edit(
        "material_preference.json",
        lambda v: v["mat_gt"][0]["tasks"][0]["items"]["Toaster"].update(good=["Metal"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", list(BROKEN), ids=range(len(BROKEN)))
def test_malformed_tables_name_file_and_row(message: str, tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match=message):
        _coat_tables.read(BROKEN[message](tmp_path))


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match=r"lack oracle\.json"):
        _coat_tables.read({name: path for name, path in BUNDLED.items() if name != "oracle.json"})
    for text in ("{", "[" * 100_000):
        (tmp_path / "tasks.json").write_text(text)
        with pytest.raises(ImprintError, match=r"tasks\.json is not readable JSON"):
            _coat_tables.read({**BUNDLED, "tasks.json": tmp_path / "tasks.json"})
