"""Examples before a question, small tasks, exact answers, and text that repeats itself."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import fitting
from imprint.contexts import few_shot
from imprint.datasets import function_vectors
from imprint.policies.dialogue import Request, single
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.scores import exact, repetition
from imprint.tables.inputs import Read


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


ROWS = fitting.named([{"messages": [user(f"word {i}"), said(f"drow {i}")]} for i in range(6)])


def asked(messages: list[dict[str, str]], **settings: Any) -> Request:
    plug = Plug(name="few_shot", settings={"data": "t", **settings})
    return single([plug], {"messages": messages}, Request(messages), Read(datasets={"t": ROWS}))  # type: ignore[arg-type]


def test_examples_are_earlier_turns_behind_a_system_turn() -> None:
    lead = {"role": "system", "content": "Be brief."}
    messages = asked([lead, user("word 9")], shots=2).messages
    assert messages[0] == lead and messages[-1] == user("word 9") and len(messages) == 6
    assert [message["role"] for message in messages[1:]] == ["user", "assistant", "user", "assistant", "user"]


def test_examples_are_lines_of_plain_text() -> None:
    request = asked([user("word 9")], shots=1, layout="text")
    (number,) = {row["messages"][0]["content"][-1] for row in ROWS if row["messages"][0]["content"] in request.prefill}
    assert request.prefill == f"Q: word {number}\nA: drow {number}\n\nQ: word 9\nA:"
    assert request.messages == [] and request.stop == ("\n",)
    assert asked([user("word 9")], shots=0, layout="text").prefill == "Q: word 9\nA:"


def test_a_question_is_never_an_example_of_itself_and_has_its_own_examples() -> None:
    drawn = set()
    for row in ROWS:
        question = row["messages"][0]
        messages = asked([question], shots=5).messages
        assert messages.count(question) == 1
        drawn.add(tuple(message["content"] for message in messages[:4]))
        assert messages == asked([question], shots=5).messages
        assert messages != asked([question], shots=5, seed=1).messages
    assert len(drawn) > 1


def test_what_it_cannot_show_it_refuses() -> None:
    with pytest.raises(ImprintError, match="6 examples are asked for, and there are 5 other rows"):
        asked([user("word 1")], shots=6)
    with pytest.raises(ImprintError, match="found 2 turns of the user; `layout: text` needs one of each"):
        asked([user("a"), said("b"), user("c")], shots=0, layout="text")
    bare = [{"example_id": "e", "messages": [user("x")]}]
    with pytest.raises(ImprintError, match="example e ends without an assistant's turn"):
        few_shot.shown(Request([user("y")]), bare, 1, "turns", "")  # type: ignore[list-item]


def test_the_reader_of_small_tasks(tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    path.write_text(json.dumps([{"input": " hot", "output": ["cold", "icy"]}, {"output": "b", "input": "a"}]))
    first, second = function_vectors.rows(function_vectors.Settings(), {"task.json": path})
    assert first["messages"] == [user("hot"), said("cold")] and first["reference"] == {"answer": "cold"}
    assert second["cluster"] == "a"
    path.write_text(json.dumps([{"input": "hot", "output": []}]))
    with pytest.raises(ImprintError, match=r"object 1: found .*; write texts for input and output"):
        list(function_vectors.rows(function_vectors.Settings(), {"task.json": path}))


@pytest.mark.parametrize(
    ("response", "case", "value", "unparsed"),
    [
        (" Vaduz.\n\nQ: x", False, 1, False),
        ("vaduz", False, 1, False),
        ("vaduz", True, 0, False),
        ("Vaduz is it", False, 0, False),
        (" \n ", False, 0, True),
    ],
)
def test_an_exact_answer(response: str, case: bool, value: int, unparsed: bool) -> None:
    (verdict,) = exact.score({"reference": {"answer": "Vaduz"}}, response, exact.Settings(case=case))
    assert (verdict.value, verdict.unparsed) == (value, unparsed)


def test_a_broken_reference_is_an_error() -> None:
    with pytest.raises(ImprintError, match="write a text, such as 'Vaduz'"):
        exact.score({"reference": {"answer": 3}}, "x", exact.Settings())


def test_text_that_repeats_itself_is_seen() -> None:
    def values(text: str) -> dict[str, float | None]:
        return {v.metric: v.value for v in repetition.score({}, text, repetition.Settings())}

    assert values("go on " * 8)["degenerate"] == 1 and values("go on " * 8)["repeats"] == 7
    assert values("A plain sentence says one thing, and then another.")["degenerate"] == 0
    assert values("") == {"degenerate": 0, "distinct_2": 1, "repeats": 0}


@pytest.mark.parametrize("seed", range(30))
def test_repetition_is_bounded_and_grows_with_copies(seed: int) -> None:
    draw = random.Random(seed)
    text = " ".join(draw.choice("abcdefgh") * draw.randint(1, 3) for _ in range(draw.randint(3, 60)))
    found = {
        n: {v.metric: v.value for v in repetition.score({}, f"{text} " * n, repetition.Settings())} for n in (1, 7)
    }
    assert all(0 < (each["distinct_2"] or 0) <= 1 for each in found.values())
    assert (found[7]["distinct_2"] or 0) <= (found[1]["distinct_2"] or 0) and (found[7]["repeats"] or 0) >= 7
