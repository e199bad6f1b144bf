"""Rows from other rows: parts of a dataset, and the answers of a run that a score accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from conftest import one_fit
from imprint.config import graph, loading
from imprint.dag import leakage
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.synthesis import accepted, split
from imprint.tables import dataset_rows
from imprint.tables.inputs import Read

PARTS = {"fit": 0.5, "compose": 0.25, "test": 0.25}


def rows(n: int, clusters: int | None = None) -> list[dict[str, Any]]:
    made = [{"messages": [{"role": "user", "content": f"Question {i}?"}], "reference": None} for i in range(n)]
    named = dataset_rows.identified(made)
    return named if clusters is None else [{**row, "cluster": f"c{i % clusters}"} for i, row in enumerate(named)]


def part(source: list[dict[str, Any]], name: str, parts: dict[str, float] | None = None) -> list[str]:
    settings = split.Settings(of="d", part=name, parts=parts or PARTS)
    return [row["example_id"] for row in split.rows(settings, Read({"d": source}), None).rows]


@given(st.integers(8, 60), st.permutations(["fit", "compose", "test"]))
def test_parts_are_apart_complete_and_of_their_sizes(n: int, order: list[str]) -> None:
    source = rows(n)
    parts = {name: part(source, name, {each: PARTS[each] for each in order}) for name in order}
    together = [example_id for ids in parts.values() for example_id in ids]
    assert sorted(together) == sorted(row["example_id"] for row in source)
    for name, ids in parts.items():
        assert abs(len(ids) - PARTS[name] * n) <= 1
        assert ids == [row["example_id"] for row in source if row["example_id"] in ids], "the dataset's order"


@given(st.integers(4, 12))
def test_clusters_stay_together(clusters: int) -> None:
    source = rows(60, clusters)
    of = {row["example_id"]: row["cluster"] for row in source}
    found = [{of[example_id] for example_id in part(source, name)} for name in ("fit", "compose")]
    assert not found[0] & found[1]


def test_content_alone_decides() -> None:
    source = rows(40)
    assert set(part(source, "fit")) == set(part(source[::-1], "fit"))
    with pytest.raises(ImprintError, match="2 rows in 1 clusters, of which the part 'test' would get none"):
        part(rows(2, 1), "test")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"part": "other", "parts": PARTS}, "'other' is none of the parts fit, compose, test"),
        ({"part": "a", "parts": {"a": 0.7, "b": 0.4}}, "together at most 1"),
        ({"part": "a", "parts": {"a": 0.0}}, "shares above 0"),
    ],
)
def test_shares_that_mean_nothing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        split.Settings(of="d", **settings)


def config(held_out: str) -> dict[str, Any]:
    """A fit to the part `fit` of a dataset, with an eval on another part."""
    raw = one_fit()
    for name in ("fit", "test"):
        raw["datasets"][name] = {"synth": "split", "of": "dialogues", "part": name, "parts": PARTS}
    raw["arms"]["tuned"]["fit"]["data"] = "fit"
    raw["evals"]["held_out"] = {"dataset": held_out, "score": "likelihood"}
    return raw


def test_parts_of_one_dataset_are_no_leak() -> None:
    made = loading.parse(config("test"))
    cache = leakage.check(made)
    assert len(cache["fit"] or []) > len(cache["test"] or []) > 0
    with pytest.raises(ImprintError, match="held_out"):
        leakage.check(loading.parse(config("dialogues")))


def test_what_a_teacher_has_still_to_write_is_not_made_before() -> None:
    """A shuffle of roles that a teacher will write cannot be made yet; its rows count as those of its source."""
    raw = config("test")
    raw["datasets"]["roles"] = {"synth": "role_prompts", "from": "fit", "teacher": "base"}
    raw["datasets"]["shuffled"] = {"synth": "shuffled_roles", "from": "roles"}
    raw["arms"]["tuned"]["fit"]["data"] = "shuffled"
    cache = leakage.check(loading.parse(raw))
    assert [row["example_id"] for row in cache["shuffled"] or []] == [row["example_id"] for row in cache["fit"] or []]


def generations(path: Path, responses: list[dict[str, Any]]) -> Path:
    common = {"arm": "rft", "seed": 0, "eval": "practice", "turn": 0, "sample": 0, "final": True}
    common |= {"finish_reason": "stop", "seconds": 0.0, "engine": "echo"}
    parquet.write(path, "generations", [{**common, **response} for response in responses])
    return path


def requests() -> list[dict[str, Any]]:
    reference = {"instruction_id_list": ["detectable_format:title"], "kwargs": [{}]}
    made = [{"messages": [{"role": "user", "content": f"Title {i}."}], "reference": reference} for i in range(4)]
    return dataset_rows.identified(made)


def test_accepted_answers_become_dialogues(tmp_path: Path) -> None:
    source = requests()
    ids = [row["example_id"] for row in source]
    said = [
        {"example_id": ids[2], "response": "<<Winds>> They blow."},
        {"example_id": ids[0], "response": "No title.", "sample": 0},
        {"example_id": ids[0], "response": "<<Tides>> They turn.", "sample": 1},
        {"example_id": ids[0], "response": "<<Seas>> They wave.", "sample": 2},
        {"example_id": ids[1], "response": "<<Cut>> in the mid", "finish_reason": "length"},
        {"example_id": ids[3], "response": None, "finish_reason": None, "error": "too long"},
        {"example_id": ids[3], "response": "<<Not>> the answer", "final": False},
        {"example_id": ids[3], "response": " \n", "sample": 1},
    ]
    settings = accepted.Settings.model_validate(
        {"arm": "rft", "eval": "practice", "dataset": "requests", "score": "ifeval"}
    )
    assert accepted.inputs(settings).runs == (("rft", "practice"),)
    inputs = Read({"requests": source}, {}, {("rft", "practice"): generations(tmp_path / "g.parquet", said)})
    made = accepted.rows(settings, inputs, None)
    assert [(row["example_id"], row["messages"][-1]) for row in made.rows] == [
        (ids[0], {"role": "assistant", "content": "<<Tides>> They turn."}),
        (ids[2], {"role": "assistant", "content": "<<Winds>> They blow."}),
    ]
    assert [attempt["kept"] for attempt in made.attempts] == [True, False, True, False, False, False, False]
    assert {attempt["reason"] for attempt in made.attempts} == {
        None,
        "not accepted by the score",
        "cut at the limit of tokens",
        "no written answer",
    }
    with pytest.raises(ImprintError, match=r"dataset 'requests', eval 'practice': .* write that of the run's eval"):
        accepted.rows(settings, Read({"requests": rows(3)}, {}, inputs.runs), None)
    none = generations(tmp_path / "n.parquet", said[1:2])
    with pytest.raises(ImprintError, match="accepts no answer"):
        accepted.rows(settings, Read({"requests": source}, {}, {("rft", "practice"): none}), None)


def test_a_dataset_of_accepted_answers_stands_behind_the_run() -> None:
    raw = one_fit()
    raw["datasets"]["practice"] = {"generated": "ifeval_format", "n": 8, "instructions": "train", "seed": 5}
    raw["evals"]["practice"] = {"dataset": "practice", "score": "ifeval"}
    made = {"synth": "accepted", "arm": "tuned", "eval": "practice", "dataset": "practice", "score": "ifeval"}
    raw["datasets"]["accepted"] = made
    graph_of = graph.edges(loading.parse(raw))
    assert ("run", "tuned", "practice") in graph_of["dataset", "accepted"]
