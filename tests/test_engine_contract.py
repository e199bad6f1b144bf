"""What is asked of every engine, on a pico model in fp32: a module in `imprint/engines` is tested here by being there.
What one engine alone promises has its own file."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import chat_server
import pico_arms
from generated import QUESTIONS
from imprint.engines import ABILITIES, Candidates, Prompt, Response, Running
from imprint.engines._openai_wire import Server
from imprint.policies import shards
from imprint.runtime import plugins, servers
from imprint.runtime.errors import ImprintError

BATCH = 4
LONGEST = 12
CLOSE = 1e-4  # nats; the last bits of a sum differ with the shape of a batch
WAYS: list[dict[str, Any]] = [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.5}, {"temperature": 2.0}]
OPTIONS = ("yes", " no", "é" * 5, "perhaps the sea, or whatever you are told")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_arms.root(tmp_path_factory.mktemp("model") / "pico")


# vLLM has its own environment, so it is asked the same in tests/vllm_cpu, and a stand-in in tests/test_vllm_engine.py.
@pytest.fixture(scope="module", params=[name for name in plugins.names("engines") if not name.startswith("vllm")])
def engine(
    request: pytest.FixtureRequest, manifest: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    module = plugins.load("engines", request.param)
    if request.param != "openai":
        yield module.start([manifest], "float32", "cpu", BATCH)
        return
    with chat_server.serving(chat_server.of_model(manifest.parent)) as server:
        of_server = Server("models.pico", server.url, "pico", "", servers.Access())
        yield _Forgetful(module.Engine(of_server, BATCH, tmp_path_factory.mktemp("answers")))


class _Forgetful:
    """An engine that keeps answers, without the answers that it has kept: each call asks the server anew."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def generate(self, prompts: list[Prompt]) -> list[Response]:
        shutil.rmtree(self.engine.kept.folder, ignore_errors=True)
        answers: list[Response] = self.engine.generate(prompts)
        return answers


@pytest.fixture
def can(request: pytest.FixtureRequest, engine: Running) -> frozenset[str]:
    """What the engine says that it can do."""
    found: frozenset[str] = plugins.load("engines", request.node.callspec.params["engine"]).CAN
    return found


def prompts(engine: Running, most: int = LONGEST, **how: Any) -> list[Prompt]:
    """A prompt for each question, each with its own seed."""
    rendered = [engine.render([{"role": "user", "content": question}]) for question in QUESTIONS]
    return [Prompt(text, most, breaks=breaks, seed=seed, **how) for seed, (text, breaks) in enumerate(rendered)]


def mixed(engine: Running) -> list[Prompt]:
    """Every question in every way, so that rows of one batch are drawn, and end, in different ways."""
    asked = [prompt for how in WAYS for prompt in prompts(engine, **how)]
    lengths = (LONGEST, 1, 5)
    return [
        dataclasses.replace(one, max_new_tokens=lengths[i % 3], stop=("e",) if i % 2 else ())
        for i, one in enumerate(asked)
    ]


def same(left: list[Response], right: list[Response]) -> None:
    """Equal in all but wall time and the last bits of the log-probabilities."""
    for a, b in zip(left, right, strict=True):
        assert a.logprob_sum == pytest.approx(b.logprob_sum, abs=CLOSE)
        assert dataclasses.replace(a, seconds=0, logprob_sum=0) == dataclasses.replace(b, seconds=0, logprob_sum=0)


def test_it_says_what_it_can_do(engine: Running, can: frozenset[str]) -> None:
    assert "generate" in can <= set(ABILITIES)
    assert (engine.model is None) == ("hooks" not in can)
    module = sys.modules[type(engine).__module__]
    assert "sample" not in can or (module.sampler and engine.renew and engine.decode)
    assert engine.name and engine.batch_size == BATCH


def test_a_prompts_answer_is_its_own(engine: Running) -> None:
    """Again, reversed, alone and in other company."""
    asked = mixed(engine)
    found = engine.generate(asked)
    assert all(response.error is None for response in found)
    same(engine.generate(asked), found)
    same(engine.generate(asked[::-1])[::-1], found)
    same([engine.generate([one])[0] for one in asked], found)
    stride = [i for start in range(5) for i in range(start, len(asked), 5)]
    same(engine.generate([asked[i] for i in stride]), [found[i] for i in stride])


def test_what_was_answered_before_a_break_is_not_asked_again(engine: Running, tmp_path: Path) -> None:
    asked = mixed(engine)
    whole = shards.answer(engine, asked, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        shards.answer(_Counting(engine, breaks_after=2), asked, tmp_path / "broken")
    rest = _Counting(engine)
    resumed = shards.answer(rest, asked, tmp_path / "broken")
    assert rest.asked == len(asked) - 2 * BATCH
    same([one for (one,) in resumed], [one for (one,) in whole])


class _Counting:
    """An engine that counts the prompts that it is asked, and may be broken off after some batches."""

    def __init__(self, engine: Running, breaks_after: int | None = None) -> None:
        self.engine, self.breaks_after, self.batch_size, self.tokens = engine, breaks_after, BATCH, engine.tokens
        self.asked = 0

    def generate(self, batch: list[Prompt]) -> list[Response]:
        if self.breaks_after is not None and self.asked >= self.breaks_after * BATCH:
            raise KeyboardInterrupt
        self.asked += len(batch)
        return self.engine.generate(batch)


def test_a_response_counts_its_tokens(engine: Running) -> None:
    asked = mixed(engine)
    for one, response in zip(asked, engine.generate(asked), strict=True):
        read = len(engine.tokens(one.text, one.breaks))
        if engine.name.startswith("openai"):  # only the server knows its tokens
            read = response.prompt_tokens or 0
        assert response.prompt_tokens == read > 0
        assert response.response_tokens is not None and 1 <= response.response_tokens <= one.max_new_tokens
        assert response.answer_tokens == response.response_tokens, "without an opening, all of it is the answer"
        assert response.finish_reason in ("stop", "length")
        if response.finish_reason == "length":
            assert response.response_tokens == one.max_new_tokens


def test_a_shorter_answer_is_the_beginning_of_a_longer_one(engine: Running) -> None:
    how = {"temperature": 1.0}
    longer, shorter = (engine.generate(prompts(engine, most, **how)) for most in (LONGEST, 5))
    for long, short in zip(longer, shorter, strict=True):
        # A character that the limit has split is written as U+FFFD.
        assert (long.text or "").startswith((short.text or "").rstrip("\ufffd"))


def test_the_end_token_counts_and_is_no_text(engine: Running) -> None:
    asked = prompts(engine, 80, temperature=1.0)
    ended = [(a, r) for a, r in zip(asked, engine.generate(asked), strict=True) if r.finish_reason == "stop"]
    assert ended
    for one, whole in ended:
        if (whole.response_tokens or 0) > 1:
            (cut,) = engine.generate([dataclasses.replace(one, max_new_tokens=(whole.response_tokens or 0) - 1)])
            assert (cut.text, cut.finish_reason) == (whole.text, "length"), "without the end token, it has not ended"


def test_a_stop_text_ends_a_response_before_it(engine: Running) -> None:
    tried = 0
    for one, free in zip(prompts(engine), engine.generate(prompts(engine)), strict=True):
        text = free.text or ""
        for stop in _places(text):
            tried += 1
            (response,) = engine.generate([dataclasses.replace(one, stop=("never there", stop))])
            assert (response.text, response.finish_reason) == (text[: text.index(stop)], "stop")
            assert (response.response_tokens or 0) <= (free.response_tokens or 0)
    assert tried >= 3


def test_the_answer_behind_an_opening_has_its_own_tokens(engine: Running) -> None:
    tried = 0
    for one, free in zip(prompts(engine), engine.generate(prompts(engine)), strict=True):
        text = free.text or ""
        for opening in _places(text):
            tried += 1
            asked = dataclasses.replace(one, max_new_tokens=2, opening=opening, before=LONGEST)
            (response,) = engine.generate([asked])
            assert opening in (response.text or "") and text.startswith((response.text or "").rstrip("\ufffd"))
            assert response.answer_tokens is not None and 0 <= response.answer_tokens <= 2
            assert response.answer_tokens < (response.response_tokens or 0), "the opening is no part of the answer"
    assert tried >= 3


def _places(text: str) -> Iterator[str]:
    """A text of two whole characters from the middle of a response, if it has one."""
    yield from [text[i : i + 2] for i in range(1, len(text) - 3) if "\ufffd" not in text[i : i + 2]][:1]


def test_the_log_probability_is_at_temperature_1(engine: Running) -> None:
    """A cold draw is the likeliest text. Its log-probability in the tempered distribution would be 0."""
    same(engine.generate(prompts(engine, temperature=1e-9)), engine.generate(prompts(engine)))


def test_a_drawn_text_is_as_likely_as_the_engine_finds_it(engine: Running, can: frozenset[str]) -> None:
    if "loglikelihood" not in can:
        pytest.skip("the engine has no likelihoods")
    asked = [dataclasses.replace(one, seed=s) for s in range(12) for one in prompts(engine, 2, temperature=2.0)]
    # Texts that would be read as other tokens than they were drawn as are left out.
    told = [
        (one, response)
        for one, response in zip(asked, engine.generate(asked), strict=True)
        if "\ufffd" not in str(response.text) and len(engine.tokens(str(response.text))) == response.response_tokens
    ]
    assert len(told) >= 10
    found = engine.loglikelihood([Candidates(one.text, (str(r.text),), one.breaks) for one, r in told])
    for (_, response), (scored,) in zip(told, found, strict=True):
        assert scored.logprob_sum == pytest.approx(response.logprob_sum, abs=CLOSE)


def test_the_likelihoods_of_options_are_their_own(engine: Running, can: frozenset[str]) -> None:
    asked = [Candidates(one.text, OPTIONS[: 1 + i % 4], one.breaks) for i, one in enumerate(prompts(engine))]
    found = engine.loglikelihood(asked)
    if "loglikelihood" not in can:
        assert [len(group) for group in found] == [1] * len(asked)
        assert all(one.text is None and "no likelihoods" in str(one.error) for (one,) in found)
        return
    for candidates, group in zip(asked, found, strict=True):
        assert [one.text for one in group] == list(candidates.continuations)
        assert all(one.finish_reason is None and (one.logprob_sum or 0) < 0 for one in group)
    for others in (engine.loglikelihood(asked[::-1])[::-1], [engine.loglikelihood([one])[0] for one in asked]):
        for group, again in zip(found, others, strict=True):
            same(again, group)


def test_a_prompt_that_cannot_be_answered_costs_nobody_else(engine: Running) -> None:
    asked = prompts(engine)
    if engine.limit is not None:
        long = Prompt("x" * (engine.limit + 1), 1)
        refused, *others = engine.generate([long, *asked])
        assert refused.text is None and "positions" in str(refused.error)
        same(others, engine.generate(asked))
    with pytest.raises(ImprintError, match="max_new_tokens is 0"):
        engine.generate([dataclasses.replace(asked[0], max_new_tokens=0)])
    assert engine.generate([]) == [] and engine.loglikelihood([]) == []


__all__ = [name for name in globals() if name.startswith("test_")]
__all__ += ["BATCH", "OPTIONS", "can", "mixed", "prompts", "same"]  # for the engines that are asked in other files
