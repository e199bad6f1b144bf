"""Tables that were not made for Imprint: every form of file and of mapping, and what is wrong in a row by its place."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import time
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from imprint.datasets import columns
from imprint.runtime.errors import ImprintError

Rows = list[dict[str, Any]]


def as_parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def as_lines(path: Path, rows: Rows) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def as_array(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def as_separated(path: Path, rows: Rows) -> None:
    """Lists and objects become JSON text, and null becomes an empty cell, as in files that people have."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow([json.dumps(cell) if isinstance(cell, list | dict) else cell for cell in row.values()])


def packed(path: Path, rows: Rows) -> None:
    as_lines(path, rows)
    path.write_bytes(gzip.compress(path.read_bytes()))


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "rows.parquet": as_parquet,
    "rows.jsonl": as_lines,
    "rows.json": as_array,
    "rows.csv": as_separated,
    "rows.tsv": as_separated,
    "rows.jsonl.gz": packed,
}


def read(path: Path, mapping: dict[str, Any], **more: Any) -> Rows:
    chosen = columns.Settings.model_validate({"columns": mapping, **more})
    return list(columns.rows(chosen, {path.name: path}))


def of(tmp_path: Path, mapping: dict[str, Any], *rows: dict[str, Any], **more: Any) -> Rows:
    as_parquet(tmp_path / "rows.parquet", list(rows))
    return read(tmp_path / "rows.parquet", mapping, **more)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


ALPACA = {"messages": {"user": ["instruction", "input"], "assistant": "output"}, "cluster": "doc"}


@pytest.mark.parametrize("name", WRITERS)
def test_instructions_in_every_form(name: str, tmp_path: Path) -> None:
    rows = [
        {"instruction": "Sum up:", "input": 'A "text",\nlong.', "output": "Text.", "doc": 7},
        {"instruction": "Greet.", "input": "", "output": "Hé.", "doc": 8},
    ]
    WRITERS[name](tmp_path / name, rows)
    first, second = read(tmp_path / name, ALPACA)
    assert first["messages"] == [user('Sum up:\n\nA "text",\nlong.'), assistant("Text.")]
    assert second["messages"] == [user("Greet."), assistant("Hé.")]
    assert [first["cluster"], second["cluster"]] == ["7", "8"] and first["reference"] is None


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("answer", [1, "B", "b", "two"])
def test_questions_with_options_in_every_form(name: str, answer: object, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, [{"question": "1 + 1?", "choices": ["one", "two", "three"], "label": answer}])
    mapping = {"messages": {"user": "question"}, "reference": {"options": "choices", "answer": "label"}}
    (row,) = read(tmp_path / name, mapping)
    assert row["reference"] == {"options": ["A", "B", "C"], "answer": 1, "names": ["one", "two", "three"]}
    assert row["messages"][0]["content"].startswith("1 + 1?\n\nA. one\nB. two\nC. three\n\n")
    (bare,) = read(tmp_path / name, mapping, listed=False)
    assert bare["messages"] == [user("1 + 1?")]
    assert bare["reference"] == {"options": ["one", "two", "three"], "answer": 1}


def test_options_in_columns_and_in_parts_of_columns(tmp_path: Path) -> None:
    mapping = {"messages": {"user": "q"}, "reference": {"options": ["a", "b"], "answer": "right"}}
    (row,) = of(tmp_path, mapping, {"q": "?", "a": "x", "b": 2, "right": 1.0}, listed=False)
    assert row["reference"] == {"options": ["x", "2"], "answer": 1}
    choices = {"text": ["x", "y"], "label": ["A", "B"]}
    mapping = {"messages": {"user": "q"}, "reference": {"options": "choices.text", "answer": "key"}}
    (row,) = of(tmp_path, mapping, {"q": "?", "choices": choices, "key": "B"}, listed=False)
    assert row["reference"] == {"options": ["x", "y"], "answer": 1}
    (row,) = of(tmp_path, {"messages": {"user": "a.b"}}, {"a.b": "whole", "a": {"b": "part"}})
    assert row["messages"] == [user("whole")], "a column with the whole name comes first"


@pytest.mark.parametrize(
    ("options", "label", "message"),
    [
        (["1", "2", "3"], "2", "can name the options 1 and 2"),
        (["B", "A"], "B", "can name the options 0 and 1"),
        (["x", "x"], "x", "can name the options 0 and 1"),
        (["x", "y"], 2, "2 names none of 2 options; write the index of the right one, a number from 0 to 1"),
        (["x", "y"], -1, "names none"),
        (["x", "y"], 0.5, "names none"),
        (["x", "y"], True, "true names none"),
        (["x", "y"], "z", '"z" names none'),
        (["x", "y"], None, "null names none"),
        ("['x', 'y']", 0, "not JSON"),
        ("x", 0, "write a list of texts"),
        ([], 0, "write a list of texts"),
    ],
)
def test_a_label_names_one_option(options: object, label: object, message: str, tmp_path: Path) -> None:
    as_lines(tmp_path / "rows.jsonl", [{"q": "?", "options": options, "label": label}])
    mapping = {"messages": {"user": "q"}, "reference": {"options": "options", "answer": "label"}}
    with pytest.raises(ImprintError, match=rf"rows.jsonl, line 1, column '(label|options)': .*{message}"):
        read(tmp_path / "rows.jsonl", mapping)


SHAREGPT = [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]
TURNS = [{"role": "system", "content": "Be kind."}, user("Hi"), assistant("Ho")]


@pytest.mark.parametrize(
    "written", [TURNS, SHAREGPT, json.dumps(TURNS), [{**turn, "name": None} for turn in TURNS]], ids=str
)
def test_conversations(written: object, tmp_path: Path) -> None:
    assert of(tmp_path, {"messages": "turns"}, {"turns": written})[0]["messages"] == TURNS


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("Hi", "no conversation.*messages: {user: COLUMN}"),
        ([], "no conversation"),
        ([{"role": "tool", "content": "x"}], "turn 1: found .*one of the roles human, gpt, system"),
        ([user("Hi"), {"role": "assistant", "content": " "}], "turn 2"),
        ([{"role": "user", "content": None}], "turn 1"),
        (["Hi"], "turn 1"),
    ],
)
def test_what_is_no_conversation(written: object, message: str, tmp_path: Path) -> None:
    as_lines(tmp_path / "rows.jsonl", [{"turns": TURNS}, {"turns": written}])
    with pytest.raises(ImprintError, match=rf"line 2, column 'turns'.*{message}"):
        read(tmp_path / "rows.jsonl", {"messages": "turns"})


TRANSCRIPT = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Help\n\nAssistant: "


@pytest.mark.parametrize(
    ("mapping", "row"),
    [
        (
            {"messages": {"user": "q", "assistant": "good"}, "rejected": "bad"},
            {"q": "Help", "good": "Gladly.", "bad": "No."},
        ),
        ({"messages": "good", "rejected": "bad"}, {"good": TRANSCRIPT + "Gladly.", "bad": TRANSCRIPT + "No."}),
        (
            {"messages": "good", "rejected": "bad"},
            {"good": [user("Help"), assistant("Gladly.")], "bad": [user("Help"), assistant("No.")]},
        ),
    ],
)
def test_preference_pairs(mapping: dict, row: dict, tmp_path: Path) -> None:
    (pair,) = of(tmp_path, mapping, row)
    assert pair["messages"][-2:] == [user("Help"), assistant("Gladly.")]
    assert pair["fields"] == {"rejected": "No."}


def test_what_is_no_pair(tmp_path: Path) -> None:
    mapping = {"messages": "good", "rejected": "bad"}
    with pytest.raises(ImprintError, match="row 1, column 'bad': the conversation differs from `messages`"):
        of(tmp_path, mapping, {"good": [user("Help"), assistant("Yes")], "bad": [user("Hel"), assistant("No")]})
    with pytest.raises(ImprintError, match="`messages` end with a turn of the user"):
        of(tmp_path, mapping, {"good": [user("Help")], "bad": [user("Help")]})
    with pytest.raises(ImprintError, match="row 1, column 'bad': found \"\"; write a text that is not blank"):
        of(tmp_path, {"messages": {"assistant": "good"}, "rejected": "bad"}, {"good": "Yes", "bad": ""})


def test_values_of_parquet_become_json(tmp_path: Path) -> None:
    row = {
        "q": 3, "day": date(2024, 5, 1), "at": datetime(2024, 5, 1, 12), "price": Decimal("18.50"), "small": 1e-5,
        "nested": {"a": [1, None], "b": {"c": "x"}}, "yes": True, "empty": None, "picture": b"\x00",
    }  # fmt: skip
    names = ["day", "at", "price", "small", "nested", "yes", "empty"]
    mapping = {"messages": {"user": "q"}, "fields": {name: name for name in names}, "strata": {"yes": "yes"}}
    (read_row,) = of(tmp_path, mapping, row)
    assert read_row["messages"] == [user("3")] and read_row["strata"] == {"yes": True}
    assert read_row["fields"] == {
        "day": "2024-05-01", "at": "2024-05-01T12:00:00", "price": "18.50", "small": 1e-5, "nested": row["nested"],
        "yes": True, "empty": None,
    }  # fmt: skip
    for answer, text in ((18, "18"), (0.5, "0.5"), (1e-5, "0.00001"), (Decimal("1E+2"), "100"), (False, "false")):
        assert of(tmp_path, {"messages": {"user": "q"}, "reference": {"answer": "a"}}, {"q": "?", "a": answer})[0][
            "reference"
        ] == {"answer": text}
    for value in (float("nan"), float("inf"), b"\x00"):
        for mapping in (
            {"fields": {"a": "a"}},
            {"reference": {"answer": "a"}},
            {"cluster": "a"},
            {"strata": {"a": "a"}},
        ):
            with pytest.raises(ImprintError, match=r"row 1, column 'a': found .*, which JSON cannot hold"):
                of(tmp_path, {"messages": {"user": "q"}, **mapping}, {"q": "?", "a": value})


def test_plain_text(tmp_path: Path) -> None:
    (row,) = of(tmp_path, {"reference": {"options": ["text"]}}, {"text": "The sea."})
    assert row["messages"] == [] and row["reference"] == {"options": ["The sea."]}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "found no messages"),
        ({"messages": {}}, "found no turn"),
        ({"messages": {"human": "q"}}, "human"),
        ({"messages": {"user": ""}}, "at least 1 character"),
        ({"messages": {"user": "q"}, "reference": {"answer": ["a"]}}, "reference.answer: found a list"),
        ({"messages": {"user": "q"}, "rejected": "a"}, "must end with the preferred answer"),
        ({"reference": {"options": ["a"]}, "rejected": "a"}, "must end with the preferred answer"),
        ({"messages": "q", "fields": {"rejected": "a"}}, "write `rejected: COLUMN` beside"),
    ],
)
def test_mappings_that_make_no_rows(mapping: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        columns.Settings.model_validate({"columns": mapping})


@pytest.mark.parametrize("name", WRITERS)
def test_a_column_that_is_not_there(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, [{"question": "?", "label": "1"}])
    with pytest.raises(
        ImprintError, match=rf"{name}: has no column 'qestion'; did you mean 'question'. it has: question, label"
    ):
        read(tmp_path / name, {"messages": {"user": "qestion"}})


@pytest.mark.parametrize("name", WRITERS)
def test_a_blank_turn(name: str, tmp_path: Path) -> None:
    rows = [{"s": "", "q": "?"}, {"s": "Be kind.", "q": " "}]
    WRITERS[name](tmp_path / name, rows)
    with pytest.raises(
        ImprintError, match=rf"{name}, (row|line) \d+, column 'q': found \" \"; write a text that is not"
    ):
        read(tmp_path / name, {"messages": {"system": "s", "user": "q"}})
    assert read(tmp_path / name, {"messages": {"user": ["q", "s"]}})[0]["messages"] == [user("?")]
    WRITERS[name](tmp_path / name, rows[:1])
    assert read(tmp_path / name, {"messages": {"system": "s", "user": "q"}})[0]["messages"] == [user("?")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"q,a\n1\n", "row 1: has 1 cells under 2 column names"),
        ("rows.csv", b"q,q\n1,2\n", "the column 'q' is there twice"),
        ("rows.csv", b'q\n"a"b\n', "line 2: not a line of such a table"),
        ("rows.csv", b"q\n\xff\n", "not UTF-8"),
        ("rows.csv", b"", "has no column 'q'; it has: .none."),
        ("rows.jsonl", b'{"q": "a"}\n{"q": NaN}\n', "line 2: not JSON"),
        ("rows.json", b'[{"q": "a"}, 3]', "line 1: found 3"),
        ("rows.jsonl.gz", b"no gzip", "cannot be read"),
        ("rows.parquet", b"PAR1 no parquet", "not a readable Parquet file"),
        ("rows.xlsx", b"", "'.xlsx' is no form of table; write one of: .parquet"),
    ],
)
def test_broken_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImprintError, match=f"{name}.*{message}"):
        read(tmp_path / name, {"messages": {"user": "q"}})


def test_rows_that_lack_a_key_of_others(tmp_path: Path) -> None:
    as_lines(tmp_path / "rows.jsonl", [{"q": "a"}, {"q": "b", "more": "c"}])
    rows = read(tmp_path / "rows.jsonl", {"messages": {"user": ["q", "more"]}, "fields": {"more": "more"}})
    assert [row["messages"][0]["content"] for row in rows] == ["a", "b\n\nc"]
    assert [row["fields"] for row in rows] == [{"more": None}, {"more": "c"}]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20).filter(
    str.strip
)
ROWS = st.lists(
    st.builds(
        lambda q, a, texts, place, doc: {"q": q, "a": a, "texts": texts, "place": place % len(texts), "doc": doc},
        TEXT, TEXT, st.lists(TEXT, min_size=2, max_size=5, unique_by=str.strip), st.integers(0, 9), st.integers(-5, 5),
    ),
    min_size=1, max_size=5,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(rows=ROWS)
def test_rows_are_the_same_in_every_form(rows: Rows, tmp_path: Path) -> None:
    mapping = {
        "messages": {"user": "q", "assistant": "a"}, "reference": {"options": "texts", "answer": "place"},
        "fields": {"again": "q"}, "cluster": "doc",
    }  # fmt: skip
    expected = [
        {
            "messages": [user(row["q"]), assistant(row["a"])],
            "reference": {"options": row["texts"], "answer": row["place"]},
            "fields": {"again": row["q"]},
            "strata": {},
            "cluster": str(row["doc"]),
        }
        for row in rows
    ]
    for name, write in WRITERS.items():
        write(tmp_path / name, rows)
        try:
            assert read(tmp_path / name, mapping, listed=False) == expected, name
        except ImprintError as error:  # in CSV the index is text, which another option's text may equal
            assert name in ("rows.csv", "rows.tsv") and "can name the options" in str(error), name


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary() | st.text().map(str.encode), name=st.sampled_from(sorted(WRITERS)))
def test_any_file_is_read_or_refused(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with contextlib.suppress(ImprintError):
        read(tmp_path / name, {"messages": "a", "rejected": "b", "reference": {"options": "c", "answer": "d"}})


def test_nothing_nests_without_end(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "?", "deep": ' + "[" * 900 + "]" * 900 + "}\n")
    with contextlib.suppress(ImprintError):
        read(tmp_path / "rows.jsonl", {"messages": {"user": "q"}, "fields": {"deep": "deep"}})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.jsonl"])
def test_a_hundred_thousand_rows_take_seconds(name: str, tmp_path: Path) -> None:
    rows = [
        {"q": f"What is {i} + {i}?", "choices": [str(i), str(2 * i), "none of them"], "right": "B", "doc": i // 10}
        for i in range(1, 100_001)
    ]
    WRITERS[name](tmp_path / name, rows)
    began = time.process_time()
    mapping = {"messages": {"user": "q"}, "reference": {"options": "choices", "answer": "right"}, "cluster": "doc"}
    assert len(read(tmp_path / name, mapping)) == 100_000
    assert time.process_time() - began < 20
