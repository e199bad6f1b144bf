"""Best of n: which draw is taken, that a single draw is an ordinary one, and where it keeps out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import generated
import pico_arms
from conftest import one_fit
from generated import QUESTIONS, plug
from imprint.config import loading
from imprint.decoders import best_of
from imprint.engines import Response
from imprint.policies.dialogue import Outcome, Request
from imprint.runtime.errors import ImprintError
from imprint.tables.inputs import Read

REQUEST = Request([{"role": "user", "content": "So?"}], "Well,", 5, ("\n",), top_p=0.9)


def said(text: str, logprob_sum: float | None, tokens: int | None) -> Response:
    return Response(text, "stop", 3, tokens, logprob_sum, 0.0)


def chosen(*draws: Response, **settings: Any) -> Outcome:
    turns = best_of.turns(REQUEST, {}, best_of.Settings(n=len(draws), **settings), Read())
    asked = next(turns)
    assert asked == [Request(REQUEST.messages, "Well,", 5, ("\n",), settings.get("temperature", 1.0), 0.9)] * len(draws)
    with pytest.raises(StopIteration) as end:
        turns.send(list(draws))
    outcome: Outcome = end.value.value
    return outcome


def test_the_likeliest_per_token_is_taken() -> None:
    short, long = said("short", -3.0, 2), said("long", -8.0, 8)
    assert chosen(short, long, temperature=0.5) == Outcome("long", None, long)
    assert chosen(long, short).response is long
    assert chosen(short, short, said("better", -2.9, 2)).text == "better"


def test_of_equally_likely_ones_the_first_is_taken() -> None:
    draws = [said(text, -2.0, 2) for text in "abc"]
    assert chosen(*draws).response is draws[0]
    assert chosen(said("z", -4.0, 2), *draws).response is draws[0]


def test_one_draw_is_taken_whatever_it_is() -> None:
    (only,) = [said("", -50.0, 1)]
    assert chosen(only) == Outcome("", None, only)


def test_what_is_no_number_is_never_better() -> None:
    real = said("real", -900.0, 1)
    for strange in (math.nan, -math.inf):
        assert chosen(said("odd", strange, 3), real).response is real
        assert chosen(real, said("odd", strange, 3)).response is real
    assert chosen(said("odd", math.nan, 3)).text == "odd"


@pytest.mark.parametrize("mute", [said("a", None, 3), said("a", -1.0, None), said("a", 0.0, 0)])
def test_an_engine_without_log_probabilities_is_told(mute: Response) -> None:
    with pytest.raises(ImprintError, match="the engine gives no log-probability"):
        chosen(said("b", -1.0, 1), mute)


@given(st.lists(st.tuples(st.floats(-1e6, 0), st.integers(1, 4096)), min_size=1, max_size=9))
def test_nothing_drawn_is_likelier_than_what_is_taken(drawn: list[tuple[float, int]]) -> None:
    best = chosen(*(said("x", total, tokens) for total, tokens in drawn)).response
    assert best is not None and best.logprob_sum is not None and best.response_tokens
    assert best.logprob_sum / best.response_tokens == max(total / tokens for total, tokens in drawn)


def test_settings_that_mean_nothing() -> None:
    wrongs: list[dict[str, Any]] = [
        {},
        {"n": 0},
        {"n": 1.5},
        {"n": 2, "temperature": 0.0},
        {"n": 2, "temperature": 11.0},
    ]
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            best_of.Settings(**wrong)


# ---- through the job


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return pico_arms.root(tmp_path_factory.mktemp("model") / "pico")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return generated.dataset(tmp_path / "data.parquet")


def mean(row: dict[str, Any]) -> float:
    return float(row["logprob_sum"] / row["response_tokens"])


def test_of_n_draws_the_likeliest_is_final(manifest: Path, data: Path, tmp_path: Path) -> None:
    rows, prompts = generated.run(tmp_path, [manifest], data, decode=plug("best_of", n=4))
    assert len(rows) == 4 * len(QUESTIONS) and len(prompts) == len(QUESTIONS)
    places = set()
    for start in range(0, len(rows), 4):
        draws = rows[start : start + 4]
        assert len({row["example_id"] for row in draws}) == 1 and {row["turn"] for row in draws} == {0}
        assert len({row["response"] for row in draws}) > 1, "draws differ, on an eval that is greedy"
        (place,) = [place for place, row in enumerate(draws) if row["final"]]
        assert mean(draws[place]) == max(map(mean, draws))
        places.add(place)
    assert len(places) > 1, "not the first of all examples"
    again, _ = generated.run(tmp_path, [manifest], data, decode=plug("best_of", n=4))
    other, _ = generated.run(tmp_path, [manifest], data, decode=plug("best_of", n=4), seed=1)
    assert again == rows and [row["response"] for row in other] != [row["response"] for row in rows]


def test_more_draws_hold_the_fewer(manifest: Path, data: Path, tmp_path: Path) -> None:
    """A draw has its seed from its place, so that 4 of 4 are 4 of 8, but for the batch that they are drawn in."""
    few, many = (generated.run(tmp_path, [manifest], data, decode=plug("best_of", n=n))[0] for n in (4, 8))
    assert [row["response"] for row in few] == [row["response"] for i, row in enumerate(many) if i % 8 < 4]


def test_one_draw_is_an_ordinary_one_at_its_temperature(manifest: Path, data: Path, tmp_path: Path) -> None:
    plain, _ = generated.run(tmp_path, [manifest], data, temperature=0.7, samples=2)
    rows, _ = generated.run(
        tmp_path, [manifest], data, samples=2, temperature=0.2, decode=plug("best_of", n=1, temperature=0.7)
    )
    assert rows == plain, "bit for bit"


def test_options_are_scored_as_without_it(manifest: Path, data: Path, tmp_path: Path) -> None:
    contexts = [plug("self_role", role_tokens=4)]
    for more in ({}, {"contexts": contexts}):
        plain, _ = generated.run(tmp_path, [manifest], data, ask="loglikelihood", **more)
        rows, _ = generated.run(tmp_path, [manifest], data, ask="loglikelihood", decode=plug("best_of", n=3), **more)
        assert rows == plain


def test_a_prompt_that_does_not_fit_is_an_error_and_costs_nobody_else(manifest: Path, tmp_path: Path) -> None:
    data = generated.dataset(tmp_path / "data.parquet", ["x" * 3000, "Why?"])
    rows, _ = generated.run(tmp_path, [manifest], data, decode=plug("best_of", n=3))
    assert all("2048 positions" in row["error"] for row in rows[:3]) and [r["final"] for r in rows[:3]].count(True) == 1
    assert [row["error"] for row in rows[3:]] == [None] * 3 and [row["final"] for row in rows[3:]].count(True) == 1


def test_a_context_that_says_how_it_draws_is_left_alone(
    manifest: Path, data: Path, tmp_path: Path, plug_in: Any
) -> None:
    plug_in(
        "contexts",
        "noting",
        "from dataclasses import replace\n\nfrom imprint.runtime.plugins import Strict\n\n\nclass Settings(Strict):\n"
        "    pass\n\n\ndef turns(request, row, settings, inputs):\n"
        "    yield [replace(request, temperature=0.0, max_new_tokens=2)]\n    yield [request]\n    return None\n",
    )
    rows, _ = generated.run(tmp_path, [manifest], data, contexts=[plug("noting")], decode=plug("best_of", n=3))
    first = [(row["turn"], row["final"]) for row in rows[:4]]
    assert [turn for turn, _ in first] == [0, 1, 1, 1] and [final for _, final in first].count(True) == 1
    assert not first[0][1]


# ---- in a config


def raw(decode: Any) -> dict[str, Any]:
    return loading.merge(
        one_fit(),
        {
            "seeds": [3, 4],
            "datasets": {"more": {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"}},
            "evals": {"words": {"dataset": "more", "score": "ifeval"}},
            "arms": {"chosen": {"parent": "base", "evals": ["words"], "apply": {"decode": decode}}},
        },
    )


@pytest.mark.parametrize("written", [{"best_of": 8}, {"best_of": {"n": 8}}])
def test_a_config_with_it_loads_and_plans(written: Any) -> None:
    generate = generated.plan(raw(written))["generate"]
    jobs = [job for job in generate.jobs() if job.arm == "chosen"]
    assert [job.seed for job in jobs] == [3, 4], "it draws, on an eval that is greedy"
    for job in jobs:
        assert generate.spec(job).policy.decode == plug("best_of", n=8, temperature=1.0)  # type: ignore[attr-defined]
        assert "decoders/best_of.py" in generate.code(job)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("best_of", r"arms\.chosen\.apply\.decode\.n: missing"),
        ({"best_of": 0}, r"arms\.chosen\.apply\.decode\.n: found 0"),
        ({"best_of": {"n": 2, "temperature": 0}}, r"arms\.chosen\.apply\.decode\.temperature: found 0"),
        ({"best_off": 2}, "did you mean 'best_of'"),
    ],
)
def test_a_config_that_misuses_it_is_told_where(written: Any, said: str) -> None:
    with pytest.raises(ImprintError, match=said):
        loading.parse(raw(written))
