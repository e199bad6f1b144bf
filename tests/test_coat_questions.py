"""The reader of COAT's questions as its authors generate them.

`tests/coat_questions/` has a few records of files that the authors' generators wrote (task_u_dataset_gen.py with three
options; task_0-1-2_dataset_gen.py with five options, and the variations v6 of task 1 and v9 of task 2; seed 0), cut to
these records. The sentences of the questions are ours; all else is as written. The generators ran on their own tables.
Two things were changed for today's Python: sets are sorted before something is drawn from them, and the folders of the
output exist. One of the records of task 0 has lost its right choice, as the generator does now and then.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT, one_fit
from imprint.analyses import coat_rules
from imprint.config import loading
from imprint.config.sources import Dataset
from imprint.dag.experiment import Experiment
from imprint.dag.jobs.data import OfDataset, Prepare
from imprint.datasets import _coat_asking, _coat_wording, coat_questions
from imprint.runtime import needs
from imprint.runtime.errors import ImprintError
from imprint.scoring import option_sets
from imprint.tables import json_lines

FILES = {task: ROOT / f"tests/coat_questions/task_{task}.json" for task in "u012"}


def read(path: Path, task: str, **more: Any) -> list[dict[str, Any]]:
    return list(coat_questions.rows(coat_questions.Settings(task=task, **more), {path.name: path}))


def records(task: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(FILES[task].read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("task", FILES)
@pytest.mark.parametrize("how", ["options", "json"])
def test_every_form_that_the_generators_write(task: str, how: str) -> None:
    answered = [record for record in records(task) if record["correct_answer"] is not None]
    rows = read(FILES[task], task, ask=how)
    assert len(rows) == len(answered) > 1
    for row, record in zip(rows, answered, strict=True):
        user, reference = row["messages"][0]["content"], row["reference"]
        assert user.startswith(record["question"])
        assert "ABCDE"[reference["answer"]] == record["correct_answer"]
        assert row["cluster"] == row["strata"]["utility"] == record.get("concept", record.get("context"))
        assert row["strata"]["options"] == len(reference["options"]) == len(record["options"])
        assert not re.search(r"penalty|\bid\b|\d{2,}", user + " ".join(reference["options"]))
        assert (how == "json") == ('"answer"' in user) == (f"\nA. {reference['options'][0]}" in user)
        options = list(record["options"].values())
        if task in "u0":
            assert reference["names"] == [_coat_wording.object_text(name) for name in options]
            continue
        # Where a record has its id first, and the variables in another order, no text shows it.
        shape = re.compile(r"(Use )?the (clean|dirty|broken), (free|occupied|used-up) [\w-]+ .+, [^,]+, [^,.]+\.?")
        assert all(shape.fullmatch(text) for text in reference["options"])
        assert [state["object_name"] for state in row["fields"]["states"]] == [o["object_name"] for o in options]
        totals = [o["time_penalty"] + o["material_penalty"] for o in options] if task == "2" else None
        assert reference["penalty"] == totals
        found = {v.metric: v.value for v in option_sets.verdicts(reference, reference["answer"])}
        assert found["accuracy"] == 1 and found.get("regret", 0) == 0
    assert {key for row in read(FILES["1"], "1") for key in coat_rules.costs(row)} == set(coat_rules.OF_STATES)


def test_task_2_may_have_the_hint_and_states_may_be_hidden() -> None:
    assert all(_coat_wording.HINT in row["messages"][0]["content"] for row in read(FILES["2"], "2", hint=True))
    hidden = read(FILES["1"], "1", states="hidden")
    assert all(text.count(" ") == 2 + name.count(" ") for row in hidden for text, name in
               zip(row["reference"]["options"], row["reference"]["names"], strict=True))  # fmt: skip
    shuffled, shown = read(FILES["1"], "1", states="shuffled"), read(FILES["1"], "1")
    assert [row["fields"] for row in shuffled] == [row["fields"] for row in shown]
    assert shuffled != shown


def broken(task: str, tmp_path: Path, change: Any) -> str:
    """The error for the file of a task after `change` of its second record, which begins on a line that is checked."""
    changed = [record for record in records(task) if record["correct_answer"] is not None]
    change(changed[1])
    text = json.dumps(changed, indent=4)
    (tmp_path / "q.json").write_text(text, encoding="utf-8")
    with pytest.raises(ImprintError) as caught:
        read(tmp_path / "q.json", task)
    line = text.splitlines().index("    {", 2) + 1
    assert f"q.json, line {line}" in str(caught.value)
    return str(caught.value)


CHANGES: list[tuple[str, Any, str]] = [
    ("u", lambda r: r.pop("concept"), "the keys question_id, concept"),
    ("u", lambda r: r.update(concept=""), "concept: found ''; write a text"),
    ("1", lambda r: r.update(question=3), "question: found 3; write a text"),
    ("1", lambda r: r.update(concept=r.pop("context")), "the keys question_id, context"),
    ("0", lambda r: r.update(correct_answer={}), "question_answer_database.json"),
    ("0", lambda r: r.update(correct_answer="F"), "correct_answer: found 'F'"),
    ("0", lambda r: r.update(correct_answer="AB"), "correct_answer: found 'AB'"),
    ("0", lambda r: r.update(correct_answer=""), "correct_answer: found ''"),
    ("0", lambda r: r.update(options={"A": "Mug"}), "2 to 5 options, from A on"),
    ("0", lambda r: r.update(options=[]), "2 to 5 options, from A on"),
    ("0", lambda r: r["options"].update(B=r["options"]["A"]), "different names"),
    ("0", lambda r: r["options"].update(B={"object_name": "Mug"}), "different names"),
    ("1", lambda r: r["options"].update(B="Mug"), "option B: found 'Mug'"),
    ("1", lambda r: r["options"]["B"].update(mass="huge"), "option B, mass: found 'huge'"),
    ("1", lambda r: r["options"]["B"].update(object_name=["x"]), "option B, object_name"),
    ("1", lambda r: r["options"].update(B=r["options"]["A"]), "options that differ"),
    ("2", lambda r: r["options"]["B"].pop("time_penalty"), "time_penalty and material_penalty for each option"),
    ("2", lambda r: r["options"]["B"].update(time_penalty=True), "time_penalty and material_penalty for each option"),
    ("2", lambda r: [o.update(time_penalty=0, material_penalty=0) for o in r["options"].values()], "least penalty"),
]


@pytest.mark.parametrize(("task", "change", "message"), CHANGES, ids=range(len(CHANGES)))
def test_a_broken_record_is_named_by_its_line(task: str, change: Any, message: str, tmp_path: Path) -> None:
    assert message in broken(task, tmp_path, change)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["A", "B", "free", "Mug"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ABCDE"), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from("u012"), VALUES, st.data())
def test_a_record_with_any_other_value_is_read_or_refused(task: str, value: Any, data: st.DataObject) -> None:
    """Whatever a file holds, there is no other error, and no row that a score would refuse."""
    record = data.draw(st.sampled_from(records(task)))
    inside = record
    while True:
        key = data.draw(st.sampled_from(sorted(inside)))
        if not isinstance(inside[key], dict) or data.draw(st.booleans()):
            break
        inside = inside[key]
    inside[key] = value
    try:
        question = coat_questions._record(record, task, "x, line 1")
    except ImprintError as error:
        assert "x, line 1" in str(error)
        return
    made = question and _coat_asking.row(coat_questions.Settings(task=task), question, random.Random(0))
    if made:
        assert needs.problem("choice", made["reference"]) is None
        assert all(isinstance(message["content"], str) for message in made["messages"])


@given(st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=4) | st.integers() | st.none(), max_size=3)),
       st.sampled_from([None, 0, 2]))  # fmt: skip
def test_arrays_are_read_as_json_reads_them(objects: list[dict[str, Any]], indent: int | None) -> None:
    text = json.dumps(objects, indent=indent)
    read = list(json_lines.array(text, "x"))
    assert [row for _, row in read] == objects
    lines = text.splitlines()
    assert all(lines[line - 1].lstrip(" [").startswith("{") for line, _ in read)
    assert sorted(line for line, _ in read) == [line for line, _ in read]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: found ''"),
        ('{"a": 1}', "line 1: found"),
        ('\n[{"a": 1},\n 3]', "line 3: found 3"),
        ('[{"a": 1},\n{"a": }]', r"line 2: not JSON \(Expecting value\)"),
        ('[{"a": 1}\n', "line 2: found '' after an object"),
        ('[{"a": 1},\n]', "line 2: found a comma before the end"),
        ('[{"a": 1} {"a": 1}]', "line 1: found .* after an object"),
        ('[{"a": 1}]\nx', "line 2: found 'x' after the array"),
        ('[{"a": 1, "a": 2}]', "the key 'a' is written twice"),
        ('[\n{"a": NaN}]', "line 2: not JSON .NaN is no number"),
        ('[{"a": "\\ud800"}]', "lone surrogate"),
        ("[" * 100_000, "line 1: "),
        ('[{"a": ' + "9" * 5000 + "}]", "line 1: not JSON"),
    ],
)
def test_what_is_no_array_of_objects_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ImprintError, match=message):
        list(json_lines.array(text, "x"))


# A file of one's own


def test_a_dataset_may_be_a_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside.json"
    (project / "resources").mkdir(parents=True)
    (project / "resources/bundled").symlink_to(ROOT / "resources/bundled")
    outside.write_text("[]", encoding="utf-8")
    (project / "link.json").symlink_to(outside)
    (project / "mine").mkdir()
    (project / "mine/ideal.json").write_bytes(FILES["1"].read_bytes())
    (project / "mine/rows.jsonl").write_text('{"messages": [{"role": "user", "content": "?"}]}\n', encoding="utf-8")
    monkeypatch.chdir(project)
    made = {"file": "mine/ideal.json", "reader": "coat_questions", "task": "1", "ask": "json"}
    config = loading.parse({**one_fit(), "datasets": {**one_fit()["datasets"], "ideal": made}})
    dataset = config.datasets["ideal"]
    assert (dataset.source, dataset.plugin, dataset.entry()) == ("file", "coat_questions", None)
    prepare = Prepare(Experiment(config))
    assert prepare.inputs(OfDataset("ideal")) == {"files": ["mine/ideal.json"]}
    assert prepare.spec(OfDataset("ideal")).settings["task"] == "1"
    assert Dataset.model_validate({"file": "mine/rows.jsonl"}).plugin == "jsonl"
    for elsewhere in (str(outside), "link.json"):  # it is only read, and its content is pinned by its hash
        dataset = Dataset.model_validate({**made, "file": elsewhere})
        assert dataset.path() == Path(elsewhere)
    for wrong, message in (
        ({"file": "mine/none.json"}, "no file 'mine/none.json'"),
        ({"file": "mine"}, "no file 'mine'"),
        ({"file": 3}, "no file 3"),
        ({"file": "../outside.json"}, "write an absolute one"),
        ({"file": str(outside)}, "columns: missing"),
        ({"file": "mine/ideal.json", "reader": "coat_question"}, "coat_question"),
        ({"file": "mine/ideal.json", "reader": "coat_questions"}, "task"),
    ):
        with pytest.raises(ValueError, match=message):
            Dataset.model_validate(wrong)
