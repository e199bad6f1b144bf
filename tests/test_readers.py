"""Readers of public and bundled files, and the reasoning_gym generator's errors."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.datasets import gpqa, gsm8k, jsonl, lima, reasoning_gym
from imprint.runtime.errors import ImprintError
from imprint.scores import choice

ROOT = Path(__file__).parent.parent
PLUGINS = ["coat", "coat_questions", "gpqa", "gsm8k", "jsonl", "lima", "reasoning_gym"]
SCORES = ["options", "choice", "likelihood", "numeric", "reasoning_gym"]


def write(path: Path, *rows: Any) -> dict[str, Path]:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return {path.name: path}


def read(module: Any, paths: dict[str, Path]) -> list[dict[str, Any]]:
    return list(module.rows(module.Settings(), paths))


def mirror(name: str, tmp_path: Path) -> dict[str, Path]:
    """A gzipped file of the mirror, unpacked as the fetch step does it."""
    folder = os.environ.get("IMPRINT_DATA_MIRROR")
    if not folder or not (Path(folder) / name).is_file():
        pytest.skip(f"IMPRINT_DATA_MIRROR is not set to a folder with {name}")
    path = tmp_path / Path(name).name.removesuffix(".gz")
    path.write_bytes(gzip.decompress((Path(folder) / name).read_bytes()))
    return {path.name: path}


def test_plugins_import_without_heavy_libraries() -> None:
    names = [f"imprint.datasets.{name}" for name in PLUGINS] + [f"imprint.scores.{name}" for name in SCORES]
    heavy = ["torch", "transformers", "lm_eval", "reasoning_gym", "sympy"]
    code = f"import sys, {', '.join(names)}; sys.exit(' '.join(m for m in {heavy} if m in sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "workflow/scripts")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


GOOD = {"messages": [{"role": "user", "content": "Name a colour."}]}


def test_jsonl_rows(tmp_path: Path) -> None:
    text = {"messages": [], "reference": {"options": ["some text"]}, "strata": {"domain": "sea"}}
    paths = write(tmp_path / "rows.jsonl", GOOD, "", text)
    assert read(jsonl, paths) == [
        {**GOOD, "reference": None, "fields": {}, "strata": {}},
        {**text, "fields": {}},
    ]
    assert read(jsonl, write(tmp_path / "rows.jsonl", {**GOOD, "cluster": "colours"}))[0]["cluster"] == "colours"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ([1], r"line 2: found \[1\]"),
        ({**GOOD, "role": "user"}, "line 2: unknown key 'role'; write only messages"),
        ({}, "line 2, messages: found None"),
        ({"messages": []}, r"line 2, messages: found \[\]"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "line 2, message 1: .*user, assistant"),
        ({"messages": [{"role": "user", "content": " "}]}, "line 2, message 1"),
        ({"messages": [*GOOD["messages"], {"role": "user"}]}, "line 2, message 2"),
        ({"messages": ["hello"]}, "line 2, message 1: found 'hello'"),
        ({**GOOD, "fields": []}, "line 2, fields: found"),
        ({**GOOD, "strata": 3}, "line 2, strata: found 3"),
        ({**GOOD, "cluster": 3}, "line 2, cluster: found 3"),
        ({**GOOD, "cluster": None}, "line 2, cluster: found None"),
        ({**GOOD, "cluster": " "}, "line 2, cluster: found ' '"),
        ({"messages": [], "reference": "x"}, "line 2, reference: found 'x'"),
        ({"messages": [{"role": "user", "content": "a \ud800 b"}]}, "line 2: holds half a character"),
        ('{"messages": [], "reference": {"answer": NaN}}', "line 2: not JSON .NaN is no number"),
        ('{"messages": [], "reference": {"answer": ' + "1" * 5000 + "}}", "line 2: not JSON"),
    ],
)
def test_jsonl_errors_name_the_line(row: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match=message):
        read(jsonl, write(tmp_path / "rows.jsonl", GOOD, row))


def test_wrong_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"messages": "\u00e9"}'.encode("latin-1"))
    for module in (jsonl, gsm8k, lima):
        with pytest.raises(ImprintError, match=r"UTF-8|readable JSON"):
            read(module, {path.name: path})


@given(st.text())
def test_jsonl_raises_nothing_else(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(text, encoding="utf-8", errors="replace")
    for module in (jsonl, gsm8k, lima):
        with contextlib.suppress(ImprintError):
            read(module, {path.name: path})


def test_bundled_files_are_valid() -> None:
    files = sorted((ROOT / "resources/bundled").glob("*.jsonl"))
    assert files
    for path in files:
        assert read(jsonl, {path.name: path})


def test_gsm8k_rows(tmp_path: Path) -> None:
    row = {"question": "3 hens lay 2 eggs each. How many?", "answer": "3*2=<<3*2=6>>6 eggs\n#### 1,006"}
    assert read(gsm8k, write(tmp_path / "test.jsonl", row)) == [
        {
            "messages": [{"role": "user", "content": row["question"]}],
            "reference": {"answer": "1006"},
            "fields": {"solution": "3*2=6 eggs\n#### 1,006"},
            "strata": {},
        }
    ]
    for wrong in ({"question": "?"}, {"question": "?", "answer": 3}, {"question": "?", "answer": "6"}):
        with pytest.raises(ImprintError, match="line 2"):
            read(gsm8k, write(tmp_path / "test.jsonl", row, wrong))
    with pytest.raises(ImprintError, match=r'found .*many.*; end it with "#### " and a number'):
        read(gsm8k, write(tmp_path / "test.jsonl", {"question": "?", "answer": "#### many"}))


def test_published_gsm8k(tmp_path: Path) -> None:
    rows = read(gsm8k, mirror("gsm8k/test.jsonl.gz", tmp_path))
    assert len(rows) == 1319 and not any("<<" in row["fields"]["solution"] for row in rows)
    assert rows[0]["reference"] == {"answer": "18"}


def test_lima_rows(tmp_path: Path) -> None:
    path = tmp_path / "lima.json"
    last = {"instruction": "And now?", "input": "", "output": "Now this.", "history": [["First?", "That."]]}
    path.write_text(json.dumps([last, {"instruction": "Sum up:", "input": "A text.", "output": "Text."}]))
    rows = read(lima, {path.name: path})
    assert [m["content"] for m in rows[0]["messages"]] == ["First?", "That.", "And now?", "Now this."]
    assert [m["role"] for m in rows[0]["messages"]] == ["user", "assistant"] * 2
    assert rows[1]["messages"][0]["content"] == "Sum up:\nA text." and rows[1]["strata"] == {"turns": 1}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "found a dict; write a list"),
        ([3], "row 1, history: found None"),
        ([{"instruction": "x", "output": "y", "history": [["only one"]]}], "row 1, history"),
        ([{"instruction": "x", "output": "y", "history": "z"}], "row 1, history: found 'z'"),
        ([{"instruction": "x"}], r"row 1: found the keys \['instruction'\]"),
        ([{"instruction": "", "output": "y"}], "row 1"),
        ([{"instruction": "x", "output": "y"}, {"instruction": "x", "output": 3}], "row 2"),
    ],
)
def test_lima_errors_name_the_row(rows: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "lima.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(ImprintError, match=message):
        read(lima, {path.name: path})


def test_published_lima(tmp_path: Path) -> None:
    rows = read(lima, mirror("lima/lima.json.gz", tmp_path))
    assert len(rows) == 1029 and sum(row["strata"]["turns"] > 1 for row in rows) == 29
    assert all(row["messages"][-1]["role"] == "assistant" for row in rows)


def test_reasoning_gym_errors() -> None:
    pytest.importorskip("reasoning_gym")
    with pytest.raises(ImprintError, match="no task 'chain_sums'; write one of: chain_sum"):
        list(reasoning_gym.rows(reasoning_gym.Settings(task="chain_sums", n=1), {}))
    with pytest.raises(ImprintError, match=r"refuses the config .*unexpected"):
        list(reasoning_gym.rows(reasoning_gym.Settings(task="chain_sum", n=1, config={"unexpected": 1}), {}))
    with pytest.raises(ImprintError, match="refuses the config"):
        list(reasoning_gym.rows(reasoning_gym.Settings(task="chain_sum", n=1, config={"min_terms": -1}), {}))


def test_reasoning_gym_clusters() -> None:
    """Questions of one word problem or puzzle are a cluster, and so are those with the same text, which have different
    references."""
    pytest.importorskip("reasoning_gym")

    def make(task: str, n: int) -> list[dict[str, Any]]:
        return list(reasoning_gym.rows(reasoning_gym.Settings(task=task, n=n), {}))

    towers = make("tower_of_hanoi", 60)
    texts = {row["messages"][0]["content"].removesuffix(f"\n\n{reasoning_gym.DEMAND}") for row in towers}
    assert {row["cluster"] for row in towers} == texts and len(texts) < 60
    assert len({json.dumps(row["reference"]) for row in towers}) == 60
    dataset = reasoning_gym.make("gsm_symbolic", 300, 0, {})
    entries = [dataset[i] for i in range(300)]
    variables: dict[str, set[frozenset[str]]] = {}
    for i, entry in enumerate(entries):
        problem = reasoning_gym.cluster(dataset, "gsm_symbolic", i, entry)
        variables.setdefault(problem, set()).add(frozenset(entry["metadata"]["variables"]))
    assert 60 < len(variables) <= 100 < 290 < len({entry["question"] for entry in entries})
    assert all(len(names) == 1 for names in variables.values()), "one word problem has the same variables"
    assert len({row["cluster"] for row in make("arc_1d", 300)}) == 70


@pytest.mark.parametrize("task", reasoning_gym.SOURCES)
def test_an_entry_of_reasoning_gym_names_its_puzzle(task: str) -> None:
    pytest.importorskip("reasoning_gym")
    dataset = reasoning_gym.make(task, 1, 0, {})
    name = dataset[0]["metadata"][reasoning_gym.SOURCES[task]]
    assert isinstance(name, str) and reasoning_gym.cluster(dataset, task, 0, dataset[0]) == name


def test_packed_entries_come_back_equal() -> None:
    value = {"a": (1, [2, (3,)]), "b": {4: {"c": None}, (5, 6): 0.5}, "d": {"~tuple": [1]}}
    assert reasoning_gym.unpack(json.loads(json.dumps(reasoning_gym.pack(value)))) == value
    with pytest.raises(ImprintError, match="JSON cannot store"):
        reasoning_gym.pack({"a": {1, 2}})


HEADER = ["Record ID", "Question", *gpqa.OPTIONS, "High-level domain", "Subdomain"]


def table(path: Path, rows: list[list[str]]) -> dict[str, Path]:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([HEADER, *rows])
    return {path.name: path}


def test_gpqa_shuffles_options_by_seed_and_question(tmp_path: Path) -> None:
    made = [
        [f"r{i}", f' What is {i} + 1,\n"roughly"? ', str(i + 1), f"{i}", f"{i}.5", f"{-i - 9}", "Physics", "Optics"]
        for i in range(40)
    ]
    paths = table(tmp_path / "a.csv", made)
    rows = read(gpqa, paths)
    assert rows == read(gpqa, paths) and len(rows) == 40
    for i, row in enumerate(rows):
        assert row["reference"]["options"] == list("ABCD")
        options, answer = row["reference"]["names"], row["reference"]["answer"]
        assert options[answer] == str(i + 1) and sorted(options) == sorted(made[i][2:6])
        listed = "".join(f"{letter}. {text}\n" for letter, text in zip("ABCD", options, strict=True))
        assert row["messages"][0]["content"].startswith(f'What is {i} + 1,\n"roughly"?\n\n{listed}\n')
        assert row["strata"] == {"domain": "Physics", "subdomain": "Optics"}
        assert choice.score(row, f"It is \\boxed{{{'ABCD'[answer]}}}.", choice.Settings())[0].value == 1.0
    answers = [row["reference"]["answer"] for row in rows]
    assert all(answers.count(place) >= 3 for place in range(4)), "every place is right about as often"
    other = list(gpqa.rows(gpqa.Settings(seed=1), paths))
    assert [row["reference"]["answer"] for row in other] != answers
    backwards = read(gpqa, table(tmp_path / "b.csv", made[::-1]))
    assert backwards == rows[::-1], "the order does not depend on the file's"


def test_gpqa_errors_name_row_and_column(tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="row 1: has no 'Incorrect Answer 2'"):
        read(gpqa, table(tmp_path / "a.csv", [["r", "q", "1", "2", " ", "4", "", ""]]))
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImprintError, match="cannot be read as CSV"):
        read(gpqa, {"b.csv": tmp_path / "b.csv"})
