"""The transformers engine on a pico model in fp32: batches change nothing, likelihoods are those of a plain pass."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicLayer

import pico
from imprint.engines import Candidates, Prompt, _cpu_attention
from imprint.engines.transformers import Engine, _shared
from imprint.models.model_files import load_tokenizer
from imprint.runtime.errors import ImprintError

TEXTS = ["Hello", "What is the sum of two and two?", "x", "Write a poem of the sea and you are in it" * 5, "You are"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pico.make(tmp_path_factory.mktemp("pico"))


@pytest.fixture(scope="module")
def engine(folder):
    torch.set_num_threads(1)
    return Engine(AutoModelForCausalLM.from_pretrained(folder).eval(), load_tokenizer(folder), batch_size=8)


def prompts(engine, count=20, **how):
    return [Prompt(engine.render([{"role": "user", "content": t}]).text, count, **how) for t in TEXTS]


def same(left, right):
    """Equal in all but wall time and the last bits of the log-probabilities."""
    for a, b in zip(left, right, strict=True):
        assert a.logprob_sum == pytest.approx(b.logprob_sum, abs=1e-4)
        assert dataclasses.replace(a, seconds=0, logprob_sum=0) == dataclasses.replace(b, seconds=0, logprob_sum=0)


def test_render_is_the_template_with_a_prefill(engine):
    text, _ = engine.render([{"role": "user", "content": "Hi"}], "Well")
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell")
    assert engine.tokenizer.decode(engine.tokens(text)) == text
    assert engine.render([]).text == "<|im_start|>", "plain text begins with the start token"


def test_a_batch_says_what_each_prompt_says_alone(engine):
    asked = prompts(engine)
    same(engine.generate(asked), [engine.generate([one])[0] for one in asked])
    same(engine.generate(asked[::-1]), engine.generate(asked)[::-1])


def test_greedy_equals_transformers_own_generate(engine, plain_model):
    for one in prompts(engine)[:2]:
        ids = torch.tensor([engine.tokens(one.text)])
        out = plain_model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, pad_token_id=2
        )[0, ids.shape[1] :]
        (response,) = engine.generate([one])
        assert response.text == engine.tokenizer.decode(out, skip_special_tokens=True)
        assert response.response_tokens == len(out) and response.prompt_tokens == ids.shape[1]


def test_cpu_attention_is_attention(engine, plain_model):
    assert engine.model.config._attn_implementation == _cpu_attention.NAME
    assert plain_model.config._attn_implementation == "sdpa"
    ids = torch.randint(3, 250, (3, 50), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :20] = mask[1, :3] = 0
    with torch.inference_mode():
        ours, theirs = (m(ids, attention_mask=mask).logits[mask.bool()] for m in (engine.model, plain_model))
    assert torch.allclose(ours, theirs, atol=1e-4)


SELECTED = st.tuples(
    st.sampled_from(["batch_select_indices", "reorder_cache"]), st.lists(st.integers(0, 2), min_size=1, max_size=4)
)


@given(st.lists(st.one_of(st.integers(1, 9), SELECTED), max_size=9))
def test_a_roomy_cache_holds_what_a_plain_one_holds(steps):
    """Numbers append so many columns; pairs select rows."""
    draws = torch.Generator().manual_seed(0)
    roomy, plain = _cpu_attention.Layer(), DynamicLayer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cpu_attention, "ROOM", 4)
        rows = 3
        for step in steps:
            if isinstance(step, int):
                new = torch.rand(2, rows, 2, step, 5, generator=draws)
                pairs = zip(roomy.update(*new), plain.update(*new), strict=True)
                assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
            else:
                how, which = step
                index = torch.tensor([row % rows for row in which])
                rows = len(which) if plain.is_initialized else rows
                for layer in (roomy, plain):
                    getattr(layer, how)(index)
            assert roomy.get_seq_length() == plain.get_seq_length()
            assert not plain.is_initialized or torch.equal(roomy.keys, plain.keys)
            assert not plain.is_initialized or torch.equal(roomy.values, plain.values)


def test_a_roomy_cache_is_copied_once_in_many_tokens():
    layer, held = _cpu_attention.Layer(), []
    for _ in range(2 * _cpu_attention.ROOM + 3):
        layer.update(torch.rand(2, 1, 1, 4), torch.rand(2, 1, 1, 4))
        if not held or layer.roomy[0] is not held[-1]:
            held.append(layer.roomy[0])  # so that its memory is not given out again
        assert layer.keys.data_ptr() == held[-1].data_ptr()
    assert len(held) == 3


def test_models_with_another_attention_keep_it(plain_model, monkeypatch):
    monkeypatch.setattr(_cpu_attention, "MODELS", frozenset())
    _cpu_attention.install(plain_model)
    assert plain_model.config._attn_implementation == "sdpa"


def test_long_prompts_are_read_in_segments(engine, monkeypatch):
    whole = engine.generate(prompts(engine))
    monkeypatch.setattr("imprint.engines.transformers.PREFILL", 64)
    same(engine.generate(prompts(engine)), whole)


def few_shot(engine, texts=TEXTS):
    """Prompts that begin with the same three hundred characters."""
    shots = "What is the sum of two and three? It is five. " * 7
    return [Prompt(engine.render([{"role": "user", "content": shots + text}]).text, 12) for text in texts]


def test_what_all_prompts_begin_with_is_read_once_and_changes_nothing(engine, monkeypatch):
    """Greedy, drawn, and scored; whole, and in segments."""
    drawn = [dataclasses.replace(one, temperature=1.0, seed=i) for i, one in enumerate(few_shot(engine))]
    scored = [Candidates(one.text, ("yes", " no", "perhaps the sea")) for one in drawn]
    read = []
    forward = engine._forward
    monkeypatch.setattr(engine, "_forward", lambda ids, *more: read.append(ids.numel()) or forward(ids, *more))

    def answers():
        read.clear()
        said = [engine.generate(few_shot(engine)), engine.generate(drawn), *engine.loglikelihood(scored)]
        return said, sum(read)

    with monkeypatch.context() as alone:
        alone.setattr("imprint.engines.transformers.SHARED", 10**6)
        expected, apart = answers()
    found, once = answers()
    for left, right in zip(found, expected, strict=True):
        same(left, right)
    assert once < apart / 2
    monkeypatch.setattr("imprint.engines.transformers.PREFILL", 64)
    for left, right in zip(answers()[0], expected, strict=True):
        same(left, right)


def test_a_hook_is_told_of_a_shared_beginning(engine, monkeypatch):
    """The columns of its one pass and those of a prompt's own passes are the prompt; what records sees every prompt."""
    tokens = [engine.tokens(one.text) for one in few_shot(engine)]
    passes = []
    monkeypatch.setattr(engine.passing, "begin", lambda *told, **more: passes.append({**more, "real": told[0]}))
    with torch.inference_mode():
        engine._prefill(tokens)
        shared, own = passes
        assert shared["real"].all() and len(shared["real"]) == 1 and not shared["ends"]
        assert own["ends"] and [shared["real"].shape[1] + int(row.sum()) for row in own["real"]] == list(
            map(len, tokens)
        )
        passes.clear()
        batches = list(engine.read([engine.render([{"role": "user", "content": "word " * 200 + t}]) for t in TEXTS]))
    assert [len(one["real"]) for one in passes] == list(map(len, batches))


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=5), st.integers(0, 6))
def test_the_shared_beginning_is_common_and_leaves_each_prompt_a_token(rows, least):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imprint.engines.transformers.SHARED", max(1, least))
        shared = _shared(rows)
    assert all(row[:shared] == rows[0][:shared] and len(row) > shared for row in rows)
    further = all(row[: shared + 1] == rows[0][: shared + 1] and len(row) > shared + 1 for row in rows)
    assert not (shared and further), "there is no longer one"
    assert shared == 0 or (shared >= least and len(rows) > 1)


def test_rows_that_end_are_dropped_and_change_nothing(engine, monkeypatch):
    counts = (3, 30, 1, 9, 17)
    asked = [dataclasses.replace(one, max_new_tokens=n) for one, n in zip(prompts(engine), counts, strict=True)]
    dropped, select = [], type(engine._prefill([[1]])[0]).batch_select_indices
    monkeypatch.setattr(
        "transformers.DynamicCache.batch_select_indices",
        lambda self, index: (dropped.append(len(index)), select(self, index))[1],
    )
    found = engine.generate(asked)
    assert dropped, "the test is to drop rows"
    monkeypatch.setattr("imprint.engines.transformers.LIVE", 0.0)
    same(engine.generate(asked), found)
    assert tuple(one.response_tokens for one in found) == counts
    assert {one.finish_reason for one in found} == {"length"}


def test_the_log_probability_is_that_of_the_generated_tokens(engine):
    for how in ({}, {"temperature": 1.3, "seed": 5}):
        (one,) = prompts(engine, 12, **how)[:1]
        (response,) = engine.generate([one])
        head = engine.tokens(one.text)
        # The response's tokens are found by asking for ever longer answers; each is a prefix of the next.
        sums = [engine.generate([dataclasses.replace(one, max_new_tokens=n)])[0].logprob_sum for n in range(1, 13)]
        steps = [b - a for a, b in zip([0.0, *sums[:-1]], sums, strict=True)]
        assert all(step <= 1e-6 for step in steps) and sums[-1] == pytest.approx(response.logprob_sum)
        with torch.inference_mode():
            first = engine.model(torch.tensor([head])).logits[0, -1].float().log_softmax(0)
        assert any(abs(float(p) - steps[0]) < 1e-4 for p in first), "temperature 1 whatever the sampling"
        if not how:
            assert float(first.max()) == pytest.approx(steps[0], abs=1e-4)


def test_sampling_depends_on_the_seed_and_not_on_the_batch(engine):
    how = {"temperature": 1.0, "top_p": 0.9}
    asked = [dataclasses.replace(one, seed=i) for i, one in enumerate(prompts(engine, 20, **how))]
    found = engine.generate(asked)
    same(found, [engine.generate([one])[0] for one in asked])
    other = engine.generate([dataclasses.replace(one, seed=one.seed + 100) for one in asked])
    assert all(a.text != b.text for a, b in zip(found, other, strict=True))


def test_a_draw_does_not_depend_on_how_others_in_the_batch_are_drawn(engine):
    """With a nucleus the tokens are sorted, so a number stands for another token."""
    ways = ({"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.9}, {})
    asked = [dataclasses.replace(one, seed=i) for how in ways for i, one in enumerate(prompts(engine, 12, **how))]
    same(engine.generate(asked), [engine.generate([one])[0] for one in asked])


def test_the_coldest_temperature_is_the_likeliest_token(engine):
    found = engine.generate(prompts(engine, 10, temperature=1e-300))
    same(found, engine.generate(prompts(engine, 10)))


def test_a_template_that_refuses_a_dialogue_is_named(engine, monkeypatch):
    monkeypatch.setattr(engine.tokenizer, "chat_template", "{{ raise_exception('no system role') }}")
    with pytest.raises(ImprintError, match="refuses a dialogue of system, user: no system role"):
        engine.render([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])


def test_top_p_takes_the_smallest_set_and_the_draw_follows_the_distribution():
    from imprint.engines.transformers import _choose

    class Row:
        def __init__(self, prompt, draw):
            self.prompt, self.draws, self.tokens, self.reason = prompt, [draw], [], None

    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    draws = [(i + 0.5) / 1000 for i in range(1000)]
    for top_p, expected in ((1.0, [100, 500, 150, 250]), (0.7, [0, 667, 0, 333]), (0.01, [0, 1000, 0, 0])):
        rows = [Row(Prompt("", 1, temperature=1.0, top_p=top_p), draw) for draw in draws]
        counts = _choose(logits.expand(1000, 4), rows).bincount(minlength=4).tolist()
        assert counts == pytest.approx(expected, abs=1)


def test_the_end_token_ends_a_response(engine):
    ends = engine.ends
    (one,) = prompts(engine)[:1]
    logits = engine._prefill([engine.tokens(one.text)])[2]
    try:
        engine.ends = {int(logits.argmax())}
        (response,) = engine.generate([one])
    finally:
        engine.ends = ends
    assert (response.text, response.finish_reason, response.response_tokens) == ("", "stop", 1)


def test_stop_texts_end_a_response_before_them(engine):
    for one in prompts(engine, 30):
        text = engine.generate([one])[0].text
        places = [i for i in range(4, len(text) - 2) if "\ufffd" not in text[i : i + 2]]
        stop = text[places[0] : places[0] + 2]
        (response,) = engine.generate([dataclasses.replace(one, stop=("never there", stop))])
        assert response.finish_reason == "stop"
        assert response.text == text[: text.index(stop)]
        assert response.response_tokens < 30


def test_a_prompt_that_does_not_fit_is_an_error_and_costs_nobody_else(engine):
    long = Prompt("x" * 2040, 20)
    found = engine.generate([long, *prompts(engine)])
    assert "2040 tokens and up to 20 more" in found[0].error and "2048 positions" in found[0].error
    assert found[0].text is None and found[0].prompt_tokens == 2040
    same(found[1:], engine.generate(prompts(engine)))
    (found,) = engine.loglikelihood([Candidates("x" * 2040, ("yes", "n" * 20))])
    assert len(found) == 1 and found[0].text is None and "up to 20 more" in found[0].error
    assert "empty" in engine.generate([Prompt("", 5)])[0].error


@pytest.fixture
def plain_model(folder):
    """The model as transformers loads it, with its own attention."""
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def plain_pass(model, engine, prompt, continuation):
    """Log-likelihood by one forward pass over everything."""
    head, tail = engine.tokens(prompt), engine.tokens(continuation)
    with torch.inference_mode():
        logprobs = model(torch.tensor([head + tail])).logits[0].float().log_softmax(1)
    return sum(float(logprobs[len(head) + i - 1, token]) for i, token in enumerate(tail)), len(tail)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_likelihoods_equal_a_plain_forward_pass(engine, plain_model, monkeypatch, batch_size):
    monkeypatch.setattr(engine, "batch_size", batch_size)
    monkeypatch.setattr("imprint.engines.transformers.SCORED", 16)  # so that long options are read in parts
    options = ("A", " the banana", "é" * 9, "a much longer answer than the others, which you are to read in parts")
    asked = [Candidates(one.text, options[: 1 + i % 4]) for i, one in enumerate(prompts(engine))]
    for one, found in zip(asked, engine.loglikelihood(asked), strict=True):
        assert [response.text for response in found] == list(one.continuations)
        for response in found:
            total, count = plain_pass(plain_model, engine, one.text, response.text)
            assert response.logprob_sum == pytest.approx(total, abs=1e-4)
            assert (response.response_tokens, response.finish_reason) == (count, None)


def test_plain_text_is_scored_behind_the_start_token(engine, plain_model):
    text = "You are in the system and the user is a assistant. " * 12
    ((response,),) = engine.loglikelihood([Candidates(engine.render([]).text, (text,))])
    total, _ = plain_pass(plain_model, engine, "<|im_start|>", text)
    assert response.logprob_sum == pytest.approx(total, abs=1e-3) and response.prompt_tokens == 1


def test_a_space_at_the_end_of_the_prompt_goes_to_the_continuation(engine, plain_model):
    ((response,),) = engine.loglikelihood([Candidates("Answer: ", ("the sea",))])
    total, count = plain_pass(plain_model, engine, "Answer:", " the sea")
    assert response.logprob_sum == pytest.approx(total, abs=1e-4)
    assert response.text == "the sea" and response.response_tokens == count


def test_an_empty_continuation_is_an_error(engine):
    (found,) = engine.loglikelihood([Candidates("Answer:", ("yes", ""))])
    assert len(found) == 1 and "empty" in found[0].error
