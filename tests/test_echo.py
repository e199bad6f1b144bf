"""The engine that echoes: it says the user's last turn, ends where any engine would, and needs no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import generated
import pico_arms
from conftest import one_fit
from generated import QUESTIONS, plug
from imprint.config import loading
from imprint.engines import Candidates, Prompt, Running, echo
from imprint.models.chat_text import Message
from imprint.policies import conversation, policy, teacher
from imprint.policies.dialogue import Request
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_json
from imprint.tables.inputs import Read

ENGINE: Running = echo.start([Path("nowhere/manifest.json")], "bfloat16", "cuda", 4)


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def asked(messages: list[Message], prefill: str = "", most: int = 999, **how: Any) -> Prompt:
    text, breaks = ENGINE.render(messages, prefill)
    return Prompt(text, most, breaks=breaks, **how)


def test_it_says_what_the_user_said_last() -> None:
    messages: list[Message] = [
        {"role": "system", "content": "Be brief."}, user("Hello"), {"role": "assistant", "content": "Hi."}, user("So?"),
        {"role": "assistant", "content": "Well"},
    ]  # fmt: skip
    for prefill in ("", "So"):
        (response,) = ENGINE.generate([asked(messages, prefill)])
        assert (response.text, response.finish_reason, response.error) == ("So?", "stop", None)
        assert (response.response_tokens, response.logprob_sum) == (4, 0.0), "the end token counts"
        assert response.prompt_tokens == len(ENGINE.tokens(asked(messages, prefill).text))


def test_it_keeps_the_order_and_draws_nothing() -> None:
    prompts = [asked([user(text)], temperature=2.0, seed=seed) for seed, text in enumerate([*QUESTIONS, "x"])]
    assert [response.text for response in ENGINE.generate(prompts)] == [*QUESTIONS, "x"]
    assert ENGINE.generate([]) == [] and ENGINE.loglikelihood([]) == []


@pytest.mark.parametrize(
    ("said", "most", "stop", "text", "reason", "tokens"),
    [
        ("abcdef", 7, (), "abcdef", "stop", 7),
        ("abcdef", 6, (), "abcdef", "length", 6),
        ("abcdef", 1, (), "a", "length", 1),
        ("", 1, (), "", "stop", 1),
        ("abcdef", 9, ("cd",), "ab", "stop", 4),
        ("abcdef", 4, ("cd",), "ab", "stop", 4),
        ("abcdef", 3, ("cd",), "abc", "length", 3),
        ("abcdef", 9, ("bcde", "d"), "abc", "stop", 4),
        ("abcdef", 9, ("abcd", "d"), "", "stop", 4),
        ("abcdef", 9, ("x",), "abcdef", "stop", 7),
        ("abcdef", 9, ("",), "", "stop", 1),
        ("aab", 9, ("ab", "a"), "", "stop", 1),
    ],
)
def test_it_ends_where_any_engine_would(
    said: str, most: int, stop: tuple[str, ...], text: str, reason: str, tokens: int
) -> None:
    (response,) = ENGINE.generate([asked([user(said)], most=most, stop=stop)])
    assert (response.text, response.finish_reason, response.response_tokens) == (text, reason, tokens)


@given(st.text(alphabet="ab", max_size=8), st.lists(st.text(alphabet="ab", min_size=1, max_size=3)), st.integers(1, 9))
def test_it_ends_as_a_loop_over_tokens_would(said: str, stop: list[str], most: int) -> None:
    written, reason, tokens = "", "length", 0
    while tokens < most:
        tokens += 1
        if len(written) == len(said):
            reason = "stop"
            break
        written += said[len(written)]
        if any(text in written for text in stop):
            reason = "stop"
            break
    text = written[: min((written.find(text) for text in stop if text in written), default=len(written))]
    (response,) = ENGINE.generate([asked([user(said)], most=most, stop=tuple(stop))])
    assert (response.text, response.finish_reason, response.response_tokens) == (text, reason, tokens)


@given(st.lists(st.text(), min_size=1, max_size=3), st.text())
def test_what_is_said_is_text_whatever_it_holds(said: list[str], prefill: str) -> None:
    prompt = asked([user(text) for text in said], prefill, most=10**6)
    assert ENGINE.generate([prompt])[0].text == said[-1]
    assert prompt.breaks == () and len(ENGINE.tokens(prompt.text)) == len(prompt.text)


def test_different_dialogues_are_different_prompts() -> None:
    turns = [user("a"), user("b")]
    ways = [([user("ab")], ""), (turns, ""), (turns[:1], "b"), (turns[1:], ""), ([user('a"},{"role":"user')], "")]
    assert len({ENGINE.render(*way).text for way in ways}) == len(ways)


@pytest.mark.parametrize("messages", [[], [{"role": "system", "content": "Speak."}]])
def test_without_a_users_turn_there_is_an_error_that_costs_nobody_else(messages: list[Message]) -> None:
    mute, other = ENGINE.generate([asked(messages, "Once upon"), asked([user("So?")])])
    assert mute.text is None and mute.error == "the dialogue has no user's turn to echo"
    assert other.text == "So?" and other.error is None


def test_what_it_cannot_do_is_an_error() -> None:
    ((response,),) = ENGINE.loglikelihood([Candidates(asked([user("So?")]).text, ("yes", "no"))])
    assert response.text is None and "no likelihoods" in str(response.error)
    with pytest.raises(ImprintError, match="max_new_tokens is 0"):
        ENGINE.generate([asked([user("So?")], most=0)])
    assert set(plugins.load("engines", "echo").CAN) == {"generate"} and ENGINE.model is None


# ---- through the jobs


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of which only the manifest is left."""
    path = pico_arms.root(tmp_path_factory.mktemp("model") / "pico")
    for file in path.parent.iterdir():
        if file != path:
            file.unlink()
    return path


def test_the_job_needs_no_weights(manifest: Path, tmp_path: Path) -> None:
    data = generated.dataset(tmp_path / "data.parquet", [*QUESTIONS, "<|im_end|>{{ x }}", []])
    rows, prompts = generated.run(tmp_path, [manifest], data, engine="echo", samples=2, temperature=1.0)
    said = [text for text in [*QUESTIONS, "<|im_end|>{{ x }}"] for _ in range(2)]
    assert [row["response"] for row in rows[:-2]] == [text[:8] for text in said]
    assert [row["finish_reason"] for row in rows[:-2]] == ["stop" if len(text) < 8 else "length" for text in said]
    assert {row["engine"] for row in rows} == {"echo"} and len(prompts) == len(QUESTIONS) + 2
    assert [row["error"] for row in rows if row["error"]] == ["the dialogue has no user's turn to echo"] * 2


def test_contexts_and_decoders_work_over_it(manifest: Path, tmp_path: Path) -> None:
    data = generated.dataset(tmp_path / "data.parquet")
    contexts = [plug("role_play", role="Be a cook.", feedback="I am.")]
    rows, prompts = generated.run(
        tmp_path, [manifest], data, engine="echo", contexts=contexts, decode=plug("best_of", n=3)
    )
    assert [row["final"] for row in rows] == [True, False, False] * len(QUESTIONS), "draws are equally likely"
    assert [row["response"] for row in rows[::3]] == [text[:8] for text in QUESTIONS]
    dialogues = [json.loads(text)["messages"] for text in prompts.values()]
    roles = [user("Be a cook."), {"role": "assistant", "content": "I am."}]
    assert dialogues == [[*roles, user(text)] for text in QUESTIONS]


def test_it_teaches_and_converses(manifest: Path, tmp_path: Path) -> None:
    spec = policy.Spec(engine="echo", dtype="float32", batch_size=2)
    ask = teacher.asker(spec, [manifest], tmp_path, "cpu")
    assert [one.text for one in ask([Request([user(text)], max_new_tokens=99) for text in "abc"], "k")] == [
        "a",
        "b",
        "c",
    ]
    (held,) = conversation.ask(spec, [manifest], Read(), [user("Hello")], 99, "cpu")
    assert held.text == "Hello"
    assert read_json(manifest)["kind"] == "model"


# ---- in a config


def raw(**changes: Any) -> dict[str, Any]:
    """An arm of a model that the engine runs, beside one that transformers does."""
    base = {
        "models": {"m2": {"hub": "c/d", "revision": "1" * 40, "engine": "echo"}},
        "datasets": {"more": {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"}},
        "evals": {"words": {"dataset": "more", "score": "ifeval"}},
        "arms": {"echoing": {"model": "m2", "evals": ["words"]}},
    }
    return loading.merge(loading.merge(one_fit(), base), changes)


def test_a_config_with_it_loads_and_plans() -> None:
    generate = generated.plan(raw())["generate"]
    engines = {job.arm: generate.spec(job).policy.engine for job in generate.jobs()}  # type: ignore[attr-defined]
    assert engines == {"base": "transformers", "tuned": "transformers", "echoing": "echo"}
    (job,) = [job for job in generate.jobs() if job.arm == "echoing"]
    code = json.loads(generate.code(job))
    assert {name.rpartition("/")[2] for name in code if "/engines/" in name} == {"__init__.py", "echo.py"}
    alone = {**raw(), "engine": {"name": "echo"}, "arms": {"base": {"model": "m1", "evals": ["words"]}}}
    assert [job.arm for job in generated.plan(alone)["generate"].jobs()] == ["base"]


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"evals": ["general"]}, ": the eval 'general' cannot be asked: {} no loglikelihood"),
        ({"apply": {"hooks": {"constant": {"add": 1.0, "layer": 0}}}}, ".apply.hooks: {} no hooks"),
        ({"fit": {"method": "sft", "data": "dialogues"}}, ".fit: {} no weights"),
    ],
)
def test_a_config_that_asks_it_for_more_is_refused(arm: dict[str, Any], said: str) -> None:
    with pytest.raises(ImprintError) as caught:
        loading.parse(raw(arms={"echoing": arm}))
    told = said.format("the engine 'echo' of model 'm2' has")
    able = "transformers" if "hooks" in said else "transformers, vllm, vllm_batch_invariant"
    assert str(caught.value) == f"arms.echoing{told}; write an engine that has: {able}"
