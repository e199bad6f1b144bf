"""Readers of foreign logs: what they make of real ones, and what they say of broken and hostile ones."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow
import pytest

import logs
from imprint.imports import COLUMNS, Log, _lines, lm_eval, table
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError


def read(path: Path, **settings: str) -> Log:
    return lm_eval.read(path, lm_eval.Settings(**settings))


def of_table(path: Path, **settings: str) -> Log:
    return table.read(path, table.Settings(**settings))


def rows(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


# lm-eval


def test_a_real_log_with_two_filters() -> None:
    log = read(logs.REAL / "samples_tiny_sums.jsonl")
    assert log.eval == "tiny_sums" and log.samples.columns == list(COLUMNS)
    assert log.samples["question"].to_list() == ["What is 2 + 3?", "What is 7 - 4?", "What is 6 * 7?"]
    assert log.samples["reference"].to_list() == ["5", "3", "42"]
    assert log.samples["response"].to_list() == ["lol"] * 3, "before any filter"
    assert list(log.metrics) == ["exact_match,strict-match", "exact_match,flexible-extract"]
    assert log.values.rows() == [(0.0, 0.0)] * 3


def test_a_real_log_of_options() -> None:
    log = read(logs.REAL / "samples_tiny_choice.jsonl")
    assert log.metrics == {"acc": 1, "acc_norm": 1} and log.values["acc"].to_list() == [1.0, 0.0, 0.0]
    options = log.samples["options"].to_list()
    assert [len(each) for each in options] == [3, 2, 3]
    assert options[1] == [
        {"text": " blue", "logprob": -0.5474409113284238},
        {"text": " green", "logprob": -0.814466863291336},
    ]
    assert log.samples["response"].to_list() == [None] * 3 and log.samples["error"].to_list() == [None] * 3


def test_each_real_log_suits_one_reader() -> None:
    for path in sorted(logs.REAL.glob("*.jsonl")):
        suited = [name for name in plugins.names("imports") if plugins.load("imports", name).suits(path)]
        assert suited == ["lm_eval"], path


def test_nan_and_infinity_are_no_values(tmp_path: Path) -> None:
    lines = [logs.line("a", acc=1.0), logs.line("b", acc=float("nan")), logs.line("c", acc=float("inf"))]
    log = read(logs.write(tmp_path / "samples_t.jsonl", lines))
    assert log.values["acc"].to_list() == [1.0, None, None]


def test_booleans_are_numbers_and_lists_are_left_out(tmp_path: Path) -> None:
    lines = [logs.line("a", strict=True, parts=[True, False]), logs.line("b", strict=False, parts=[True])]
    log = read(logs.write(tmp_path / "samples_t.jsonl", lines))
    assert log.values.to_dict(as_series=False) == {"strict": [1.0, 0.0]} and log.left_out == ("parts",)


def test_repeats_are_samples_and_silence_is_an_error(tmp_path: Path) -> None:
    lines = [logs.line("a", acc=1.0, resps=[["x", "y"]]), logs.line("b", acc=0.0, resps=[[]])]
    log = read(logs.write(tmp_path / "samples_t.jsonl", lines))
    assert log.samples.select("response", "sample", "error").rows() == [
        ("x", 0, None), ("y", 1, None), (None, 0, "the log has no response"),
    ]  # fmt: skip


def test_lower_is_better_by_name_or_by_the_results_beside(tmp_path: Path) -> None:
    path = logs.write(tmp_path / "samples_t_2026-01-02T03-04-05.6.jsonl", [logs.line("a", acc=1.0, loss=2.0, ter=1.0)])
    assert read(path).eval == "t"
    assert read(path).metrics == {"acc": 1, "loss": 1, "ter": -1}
    results = {"higher_is_better": {"t": {"acc": True, "loss": False, "ter": True}}}
    (tmp_path / "results_2026-01-02T03-04-05.6.json").write_text(json.dumps(results))
    assert read(path).metrics == {"acc": 1, "loss": -1, "ter": 1}


def test_the_question_is_a_field_of_the_doc_else_the_prompt(tmp_path: Path) -> None:
    doc = {"doc": {"odd": "Why?", "topic": "t1"}}
    path = logs.write(tmp_path / "samples_t.jsonl", [logs.line("asked", acc=1.0, **doc)])
    assert read(path).samples["question"].to_list() == ["Question: asked\nAnswer:"]
    log = read(path, question="odd", cluster="topic")
    assert log.samples.select("question", "cluster").rows() == [("Why?", "t1")]
    with pytest.raises(ImprintError, match=r"samples_t.jsonl, about line 1: the doc has no 'topik'"):
        read(path, cluster="topik")


def test_a_metric_may_have_the_name_of_a_column(tmp_path: Path) -> None:
    path = logs.write(
        tmp_path / "samples_t.jsonl",
        [{**logs.line("a", sample=2.0), "metrics": ["question", "sample"], "question": 1.0}],
    )
    assert read(path).values.to_dict(as_series=False) == {"question": [1.0], "sample": [2.0]}


@pytest.mark.parametrize("names", [["acc", "acc"], ["acc,none", "acc"], ["doc"], "acc", [1], {"acc": 1}])
def test_names_of_metrics_that_are_none(tmp_path: Path, names: Any) -> None:
    path = logs.write(tmp_path / "samples_t.jsonl", [{**logs.line("a", acc=1.0), "acc,none": 1.0, "metrics": names}])
    with pytest.raises(ImprintError, match="line 1: `metrics` is"):
        read(path)


GOOD = json.dumps(logs.line("a", acc=1.0))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"acc": 1', "line 3: not JSON"),
        ("[1, 2]", "line 3: found [1, 2]"),
        ('{"doc": {"question": "a"}, "resps": [["x"]], "acc": "much"}', "line 3: found 'much'; write a number"),
        ('{"doc": {"question": "a"}, "resps": "x", "acc": 1}', "line 3: found 'x'; write a list"),
        ('{"doc": {"question": "\\ud800"}, "resps": [["x"]], "acc": 1}', "line 3: holds half a character"),
        ('{"doc": [1], "resps": [["x"]], "acc": 1}', "line 3: found [1]; write an object"),
        ('{"doc": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 3: not JSON"),
        ('{"acc": 1}', "about line 2: the doc has no 'question'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = rows(tmp_path / "samples_t.jsonl", GOOD, "", line)
    with pytest.raises(ImprintError) as caught:
        read(path)
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "samples_t.jsonl"
    path.write_bytes(GOOD.encode() + b'\n{"acc": "\xff"}\n')
    with pytest.raises(ImprintError, match="line 2: is not UTF-8"):
        read(path)


def test_sizes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rows(tmp_path / "samples_t.jsonl", GOOD, GOOD)
    monkeypatch.setattr(_lines, "BLOCK", 8)
    assert read(path).samples.height == 2, "a block ends with a line"
    monkeypatch.setattr(_lines, "LONGEST", 100)
    with pytest.raises(ImprintError, match=r"a line has more than 100 bytes|not JSON"):
        read(path)
    monkeypatch.setattr(_lines, "MOST", 1000)
    with pytest.raises(ImprintError, match="at most 1,000"):
        list(_lines.frames(path, lambda _: {"acc": pl.Float64}))


def test_the_quick_and_the_slow_way_agree(tmp_path: Path) -> None:
    """The slow way reads the lines again where pyarrow and polars stumble; NaN in one line is enough."""
    draw = random.Random(7)
    texts = ["", "a", 'é"\\\n', "\N{GRINNING FACE}", "{}", "1e5", "null"]
    schema = {
        "t": pl.String, "n": pl.Float64, "b": pl.Boolean, "l": pl.List(pl.List(pl.String)),
        "s": pl.Struct({"a": pl.String, "b": pl.String}),
    }  # fmt: skip
    for _ in range(60):
        line = {
            "t": draw.choice(texts),
            "n": draw.choice([0, 1.5, -2e-7, 10**15, None]),
            "b": draw.choice([True, False, None]),
            "l": [[draw.choice(texts) for _ in range(draw.randrange(3))] for _ in range(draw.randrange(3))],
            "s": draw.choice([{"a": draw.choice(texts), "b": draw.choice(texts)}, None, {"a": "x"}]),
            "other": draw.choice([1, {"t": 2}, []]),
        }
        text = json.dumps(line, ensure_ascii=False).encode()
        assert _lines._exactly_typed(text, schema).equals(_lines._loosely_typed(text, schema)), line
        quick = _lines._frame(text, schema, "f", 1)
        slow = _lines._frame(json.dumps({**line, "z": float("nan")}, ensure_ascii=False).encode(), schema, "f", 1)
        assert quick.to_dicts() == slow.to_dicts(), line


def test_a_number_in_the_place_of_a_text_is_read_as_text(tmp_path: Path) -> None:
    text = b'{"t": "a"}\n{"t": 7}\n'
    with pytest.raises(pyarrow.ArrowInvalid):
        _lines._exactly_typed(text, {"t": pl.String})
    assert _lines._frame(text, {"t": pl.String}, "f", 1)["t"].to_list() == ["a", "7"]


def mutated(value: Any, draw: random.Random) -> Any:
    """The value with something else at a random place."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(sorted(value))
        return {**value, key: mutated(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        return [*value[:place], mutated(value[place], draw), *value[place + 1 :]]
    return draw.choice([None, [], {}, "", "x" * 9, -1, 0.5, True, 1e300, [[]], [[[]]], {"a": 1}, [1, "2", None]])


@pytest.mark.parametrize("name", ["samples_tiny_sums.jsonl", "samples_tiny_choice.jsonl"])
def test_whatever_a_log_holds_it_is_read_or_refused(tmp_path: Path, name: str) -> None:
    draw = random.Random(name)
    real = [json.loads(line) for line in (logs.REAL / name).read_text().splitlines()]
    refused = 0
    for _ in range(300):
        place = draw.randrange(len(real))
        path = logs.write(tmp_path / name, [mutated(line, draw) if i == place else line for i, line in enumerate(real)])
        try:
            log = read(path)
            assert log.samples.height == log.values.height and log.samples["question"].null_count() == 0
        except ImprintError:
            refused += 1
    assert 20 < refused < 280


# Tables


def test_a_table_of_two_metrics(tmp_path: Path) -> None:
    path = rows(
        tmp_path / "mine.jsonl",
        {"question": "a", "metric": "right", "value": 1, "response": "x", "cluster": "c"},
        {"question": "a", "metric": "cost", "value": 2.5, "direction": -1},
        {"question": "b", "metric": "right", "value": None, "error": "timeout"},
    )
    log = of_table(path)
    assert (log.eval, log.metrics) == ("mine", {"right": 1, "cost": -1})
    assert log.values.rows() == [(1.0, 2.5), (None, None)]
    assert log.samples.select("question", "response", "cluster", "error").rows() == [
        ("a", "x", "c", None), ("b", None, None, "timeout"),
    ]  # fmt: skip


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    written = {"example_id": ["e1", "e2"], "value": [1, 0], "seed": [3, 3], "sample": [0, 0], "junk": [[1], [2]]}
    pl.DataFrame(written).write_parquet(tmp_path / "t.parquet")
    log = of_table(tmp_path / "t.parquet")
    assert log.samples.select("question", "detail", "seed").rows() == [("e1", None, 3), ("e2", None, 3)]
    assert log.values["value"].to_list() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"value": 1}], "row 1: has no `example_id`"),
        ([{"question": "a"}], "neither `response` nor `value`"),
        ([{"question": "a", "value": 1}, {"question": "a", "value": 0}], "two values of value for 'a'"),
        ([{"question": "a", "value": 1, "direction": 0.5}], "the direction of value is [0.5]"),
        ([{"question": "a", "value": "1"}], "line 1: found '1'; write a number"),
    ],
)
def test_what_is_wrong_with_a_table(tmp_path: Path, lines: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ImprintError) as caught:
        of_table(rows(tmp_path / "t.jsonl", *lines))
    assert said in str(caught.value)


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("PAR1")
    with pytest.raises(ImprintError, match="cannot be read as a table"):
        of_table(tmp_path / "t.parquet")


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="is empty"):
        lm_eval.suits(rows(tmp_path / "t.jsonl"))
