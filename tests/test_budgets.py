"""Budgets: an answer has the eval's tokens under every context, and what stands before the answer has its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asking
import fake_results as fake
from asking import Scripted, generate
from imprint.engines import Prompt, Response, echo
from imprint.engines.transformers import Row
from imprint.policies import shards
from imprint.policies.dialogue import Request
from imprint.policies.policy import Draw, Policy
from imprint.report import matrix
from imprint.runtime.plugins import Plug
from imprint.tables.inputs import Read

OPENING = "[Answer]"
PIECES = ["a", "[", "[Ans", "wer", "]", "] b", "[Answer]", "x[Answer]y", "é", " stop", "", "<end>"]
END = PIECES.index("<end>")


class Tokenizer:
    """Token i is the text PIECES[i]."""

    def decode(self, tokens: list[int], **how: Any) -> str:
        return "".join(PIECES[token] for token in tokens)


ENGINE: Any = SimpleNamespace(ends={END}, tokenizer=Tokenizer())


def written(prompt: Prompt, stream: list[int]) -> Row:
    """The sequence of a model that writes a stream of tokens, and then `a` without end."""
    row = Row(ENGINE, prompt)
    tokens = iter(stream)
    while row.reason is None:
        row.append(next(tokens, 0), -1.0)
    return row


STREAMS = st.lists(st.sampled_from(range(len(PIECES))), max_size=30)
BUDGETS = st.integers(1, 12)


@given(STREAMS, BUDGETS, BUDGETS, st.sampled_from([(), (" stop",), (OPENING, "wer]a")]))
def test_the_limits_hold_exactly(stream: list[int], most: int, before: int, stop: tuple[str, ...]) -> None:
    """Against the definition: the shortest beginning of the stream that ends the response."""
    prompt = Prompt("", most, stop, opening=OPENING, before=before)
    row = written(prompt, stream)
    endless = [*stream, *[0] * 40]

    def text(count: int) -> str:
        return "".join(PIECES[token] for token in endless[:count] if token != END)

    counts = range(1, len(endless))
    opened = next((count for count in counts if OPENING in text(count)), 99)
    itself = next(n for n in [*counts, 99] if n == 99 or endless[n - 1] == END or any(s in text(n) for s in stop))
    in_time = opened <= min(before, itself)
    limit = opened + most if in_time else max(before, most) if opened > max(before, most) else most
    assert len(row.tokens) == min(itself, limit) <= before + most
    if opened <= min(itself, limit):
        assert row.opened == opened and row.answer_tokens == len(row.tokens) - opened
        assert row.reason == ("stop" if itself <= limit else "length")
        assert not in_time or itself < limit or row.answer_tokens == most, "all of its budget"
    else:
        assert row.opened is None and row.answer_tokens == min(len(row.tokens), most)
        assert row.reason == ("stop" if itself <= min(limit, most) else "length")
        if not stop:
            assert row.text() == text(row.answer_tokens), "what exceeds the answer's budget is cut off"


@given(STREAMS, BUDGETS)
def test_without_an_opening_there_is_one_budget(stream: list[int], most: int) -> None:
    row = written(Prompt("", most), stream)
    assert row.answer_tokens == len(row.tokens) <= most and row.opened is None
    assert (row.reason == "length") == (END not in row.tokens)


@given(st.text(alphabet="a[Aw]", max_size=14), BUDGETS, BUDGETS, st.sampled_from([(), ("w",), ("a[", "]")]))
def test_the_echo_has_the_same_limits(said: str, most: int, before: int, stop: tuple[str, ...]) -> None:
    """A character is a token of both."""
    how: dict[str, Any] = {"stop": stop, "opening": "[A", "before": before}
    engine = echo.start([], "float32", "cpu", 1)
    (response,) = engine.generate([Prompt(engine.render([{"role": "user", "content": said}]).text, most, **how)])
    characters: Any = SimpleNamespace(
        ends={0}, tokenizer=SimpleNamespace(decode=lambda ids, **how: "".join(map(chr, ids)))
    )
    row = Row(characters, Prompt("", most, **how))
    for token in [*map(ord, said), 0]:
        if row.reason is None:
            row.append(token, 0.0)
    expected = (row.text(), row.reason, len(row.tokens), row.answer_tokens)
    assert (response.text, response.finish_reason, response.response_tokens, response.answer_tokens) == expected


def test_a_response_is_the_beginning_of_what_one_budget_gave() -> None:
    """In draws too: the same random numbers choose the same tokens."""
    short, long = (Row(ENGINE, Prompt("", 5, temperature=1.0, seed=3, before=before)).draws for before in (0, 40))
    assert len(short) == 5 and len(long) == 45 and long[:5] == short


SELF = Plug(name="self_role", settings={"role_tokens": 7})
PLAN = Plug(name="prior_prompt", settings={"style": "plan", "first_part_tokens": 11})


def asks(contexts: list[Plug], **how: Any) -> list[tuple[str, int, int]]:
    """The opening, the tokens before it and those behind it, of the one prompt that contexts make."""
    policy = Policy(Scripted(lambda prompt: ""), contexts, None, Read())
    row = {"example_id": "a-0", "messages": [{"role": "user", "content": "Why?"}], "fields": {}}
    (request,) = next(policy.turns(row, Request(row["messages"], **how)))
    prompt = policy.prompt_for(request, Draw(20))
    assert isinstance(prompt, Prompt)
    return prompt.opening, prompt.before, prompt.max_new_tokens


def test_the_answer_has_the_evals_tokens_under_every_context() -> None:
    none = Plug(name="prior_prompt", settings={"style": "none"})
    assert asks([]) == asks([Plug(name="plain")]) == asks([Plug(name="role_play")]) == asks([none]) == ("", 0, 20)
    assert asks([SELF]) == ("[Answer]", 7, 20) and asks([PLAN]) == ("<answer>", 11, 20)
    # The text of the outer context is the last before the answer, and each part before it has its tokens.
    assert asks([PLAN, SELF]) == ("<answer>", 18, 20) and asks([SELF, PLAN]) == ("[Answer]", 18, 20)
    assert asks([SELF], max_new_tokens=3) == ("[Answer]", 7, 3)


def test_the_table_splits_a_response(tmp_path: Path) -> None:
    """Questions that hold the opening are echoed."""
    texts = ["[Role] A.\n[Answer] abcdefghij", "no role at all", "[Role] much longer [Answer] abc"]
    data = asking.questions(tmp_path / "d.parquet", texts)
    contexts = [Plug(name="self_role", settings={"role_tokens": 20})]
    rows, _ = generate(asking.paper(tmp_path), data, tmp_path, engine="echo", contexts=contexts, max_new_tokens=6)
    got = [(row["response"], row["finish_reason"], row["response_tokens"], row["answer_tokens"]) for row in rows]
    assert got == [
        ("[Role] A.\n[Answer] abcde", "length", 24, 6),
        ("no rol", "length", 15, 6),
        ("[Role]", "length", 20, 6),
    ]


def test_a_shard_keeps_the_split_and_another_limit_is_another_prompt(tmp_path: Path, capsys: Any) -> None:
    engine = Scripted(lambda prompt: Response("yes", "stop", 9, 5, -1.0, 0.1, answer_tokens=2))
    prompt = Prompt("x", 4, opening=OPENING, before=3)
    ((first,),) = shards.answer(engine, [prompt], tmp_path)
    ((again,),) = shards.answer(engine, [prompt], tmp_path)
    assert first == again and again.answer_tokens == 2 and len(engine.batches) == 1
    shards.answer(engine, [Prompt("x", 4, opening=OPENING, before=5)], tmp_path)
    assert len(engine.batches) == 2 and "answers other prompts" in capsys.readouterr().err


def test_the_report_says_what_was_written_and_what_is_in_the_answer() -> None:
    tables = fake.tables(8)
    generations = tables["generations"].with_columns(answer_tokens=pl.lit(4, pl.Int64))
    draft = generations.with_columns(final=pl.lit(False), turn=pl.lit(1, pl.Int64))
    rows = matrix.spent(tables["costs"], pl.concat([generations, draft]), fake.facts())
    assert {(row["per_example"], row["per_answer"]) for row in rows} == {(24.0, 4.0)}


@pytest.mark.parametrize(("before", "most"), [(1, 1), (3, 9), (9, 3)])
def test_a_prompt_needs_room_for_its_longest_response(before: int, most: int) -> None:
    prompt = Prompt("", most, opening=OPENING, before=before)
    ends = [prompt.limit(opened) for opened in (None, *range(1, max(before, most) + 1))]
    assert max(ends) == prompt.longest == before + most
