"""Memory that is reckoned before it is needed: by hand, against the tensors of real fits, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

import fitting
import pico_arms
import sized
import test_grpo
from imprint.engines import Prompt, _cpu_attention, transformers
from imprint.methods import atlas, grpo
from imprint.runtime import gpu_memory, model_sizes, plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.gpu_memory import GB, Holds, Need, Term
from imprint.runtime.model_sizes import Adapter, Model
from imprint.runtime.plugins import Plug
from live_tensors import live

TINY: dict[str, Any] = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 100,
    "tie_word_embeddings": True,
}
SLACK = 1.9
"""How far above the peak of a fit of the pico model the reckoning may be. It is a bound for all layers and positions,
and at this size the edges are a large part. benchmarks/gpu_memory.py has a narrower limit for a real model."""


def tiny(**keys: Any) -> Model:
    config = {**TINY, **keys}
    return model_sizes.sizes(config, sized.shapes(config, bias=False))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a pico model."""
    return pico_arms.root(tmp_path_factory.mktemp("models") / "pico")


def terms(need: Need) -> dict[str, int]:
    return {term.name: term.size for term in need.terms if term.size}


def fit_of(model: Model | None, method: str, dtype: str = "bfloat16", ranks: int = 1, **settings: Any) -> Need:
    needs = {"grpo": {"reward": ["ifeval"]}}.get(method, {})
    need = gpu_memory.fit(model, Plug(name=method, settings={"data": "d", **needs, **settings}), dtype, ranks)
    assert need is not None
    return need


def test_the_sizes_of_a_tiny_llama_by_hand() -> None:
    layer = 8 * 8 + 4 * 8 + 4 * 8 + 8 * 8 + 3 * 8 * 16 + 2 * 8  # q, k, v, o; gate, up, down; two norms
    model = tiny()
    assert model.parameters == 100 * 8 + 3 * layer + 8
    assert (model.layers, model.hidden, model.attention, model.cached) == (3, 8, 8, 2 * 3 * 4)
    assert (model.head, model.tied, model.largest, len(model.matrices)) == (800, True, 800, 3 * 7)
    assert (untied := tiny(tie_word_embeddings=False)).parameters == model.parameters + 800 and not untied.tied
    # A repository may hold the output layer although it is the embedding.
    twice = {**sized.shapes(TINY, bias=False), "lm_head.weight": (100, 8)}
    assert model_sizes.sizes(TINY, twice).parameters == model.parameters


def test_an_adapter_has_two_factors_for_each_matrix() -> None:
    of_attention = (8 + 8) + (4 + 8) + (4 + 8) + (8 + 8)
    assert tiny().adapter(Adapter(4, "all-linear")) == 4 * 3 * (of_attention + 3 * (8 + 16))
    assert tiny().adapter(Adapter(4, ["q_proj", "v_proj"])) == 4 * 3 * (16 + 12)
    assert tiny().adapter(None) == 0


def test_what_fits_keep_by_hand() -> None:
    model = tiny()
    weights, adapter = model.parameters, model.adapter(Adapter(16, "all-linear"))
    exact = {name: size for name, size in terms(fit_of(model, "sft")).items() if name != "activations"}
    assert exact.pop("logits") == 8 * 192 * 100 * 14 and exact.pop("weights in bf16") == 2 * (weights - 7 * 8)
    assert exact == {"weights": 4 * weights, "optimiser": 8 * weights, "gradients": 4 * weights}
    assert fit_of(model, "sft").least == 16 * weights
    assert fit_of(model, "sft", lora={"rank": 16}).least == 4 * weights + 16 * adapter
    assert fit_of(model, "dpo").least == 20 * weights
    assert fit_of(model, "dpo", lora={"rank": 16}).least == 4 * weights + 16 * adapter
    assert fit_of(model, "grpo").least == 18 * weights, "the copy that draws is in bf16"
    assert fit_of(model, "grpo", "float32").least == 20 * weights
    assert fit_of(model, "grpo", beta=0.1).least == 20 * weights, "and so is the reference"
    assert fit_of(model, "grpo", beta=0.1, lora={"rank": 16}).least == 6 * weights + 16 * adapter
    assert fit_of(model, "atlas", vectors=["a"]).least == 2 * weights, "frozen weights are in bf16"
    assert terms(fit_of(model, "atlas", vectors=["a"]))["gradients"] == 2 * model.largest
    assert fit_of(model, "atlas", "float32", vectors=["a"]).least == 4 * weights


def test_more_sequences_than_the_backward_pass_needs_are_a_cache() -> None:
    model = tiny()
    need = fit_of(model, "grpo", micro_batch_size=1, prompts_per_step=64, completion_tokens=4096, lora={"rank": 1})
    (name,) = [term.name for term in need.terms if not term.exact]
    assert name == "cache, beyond the gradients' place"
    tokens = 256 * (4096 + gpu_memory.PROMPT)
    assert need.most > 2 * tokens * model.cached


def test_more_of_anything_never_needs_less() -> None:
    model = tiny()
    small = Holds("weights", rows=2, tokens=8)
    for dtype in ("float32", "bfloat16"):
        for more in (
            small._replace(rows=3),
            small._replace(tokens=9),
            small._replace(prompts=1),
            small._replace(reference=True),
            small._replace(sampled=4),
            small._replace(sampled=4, apart=True),
            small._replace(vectors=1),
        ):
            assert gpu_memory.of_fit(model, more, dtype).most > gpu_memory.of_fit(model, small, dtype).most
    few, many = (gpu_memory.of_engine(model, "auto", count, 16) for count in (4, 8))
    assert few.least == many.least == 2 * model.parameters and few.most < many.most
    shared = gpu_memory.of_engine(model, "auto", 8, 16, ranks=2)
    assert shared.least == model.parameters and terms(shared)["cache"] == terms(many)["cache"] // 2


def test_headers_alone_say_how_large_a_model_is(tmp_path: Path) -> None:
    folder = sized.make(tmp_path / "qwen", sized.QWEN_7B)
    model = model_sizes.model(folder)
    assert model is not None and model.parameters == 7_615_616_512
    assert (folder / "model.safetensors").stat().st_blocks * 512 < 10**6, "the test itself takes no room"
    (folder / "config.json").write_text("[]")
    assert model_sizes.model(folder) is None
    assert model_sizes.model(tmp_path / "nowhere") is None


def test_shards_are_read_where_the_index_names_them(root: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((root.parent / "config.json").read_bytes())
    (tmp_path / "one.safetensors").write_bytes((root.parent / "model.safetensors").read_bytes())
    (tmp_path / "consolidated.safetensors").write_bytes(b"not looked at")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "one.safetensors"}}')
    assert model_sizes.model(tmp_path) == model_sizes.model(root.parent) != None  # noqa: E711
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    assert model_sizes.model(tmp_path) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*TINY, "head_dim"]), inner),
    max_leaves=3,
)


@given(st.dictionaries(st.sampled_from([*TINY, "head_dim", "text_config"]), JSON))
def test_a_config_that_is_none_has_no_sizes(changes: dict[str, Any]) -> None:
    try:
        model = model_sizes.sizes({**TINY, **changes}, sized.shapes(TINY))
    except model_sizes.NO_MODEL:
        return
    assert min(model[:7]) > 0


def long_rows(n: int) -> list[dict[str, Any]]:
    """Rows that are longer than any limit here, and almost all of which is trained on."""
    rows = [
        {
            "messages": [{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "z " * 400}],
            "fields": {"rejected": "y " * 400},
            "strata": {},
        }
        for i in range(n)
    ]
    return fitting.named(rows)


ROWS = {"batch_size": 2, "max_length": 384}
DRAWS = {"steps": 2, "prompts_per_step": 2, "group_size": 4, "completion_tokens": 96, "reward": ["ifeval"]}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("sft", "float32", ROWS),
    ("sft", "bfloat16", ROWS),
    ("sft", "bfloat16", {**ROWS, "lora": {"rank": 4}}),
    ("sft", "float32", {**ROWS, "gradient_checkpointing": True}),
    ("sft", "bfloat16", {**ROWS, "micro_batch_size": 1}),
    ("dpo", "bfloat16", ROWS),
    ("grpo", "float32", {**DRAWS, "beta": 0.1}),
    ("grpo", "bfloat16", {**DRAWS, "lora": {"rank": 4}}),
]


def decode_as_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an engine on this CPU have transformers' own attention and cache, as on a GPU."""
    monkeypatch.setattr(_cpu_attention, "install", lambda model: None)
    monkeypatch.setattr(_cpu_attention, "cache", DynamicCache)


@pytest.mark.parametrize(("method", "dtype", "settings"), CASES)
def test_the_tensors_of_a_fit_lie_between_both_sums(
    method: str, dtype: str, settings: dict[str, Any], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_memory, "PROMPT", 90)  # the longest of test_grpo's prompts, in bytes
    model = model_sizes.model(root.parent)
    assert model is not None
    need = fit_of(model, method, dtype, **settings)
    rows = test_grpo.rows() if method == "grpo" else long_rows(4)
    job = fitting.job(method, [root], tmp_path, datasets={"d": rows}, data="d", **settings)
    decode_as_a_gpu(monkeypatch)
    made = transformers.Engine.__init__

    def endless(engine: transformers.Engine, *arguments: Any) -> None:
        made(engine, *arguments)
        engine.ends = set()  # the bound is for completions of full length

    monkeypatch.setattr(transformers.Engine, "__init__", endless)
    kept = list[int]()
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *arguments: Any, **options: Any) -> Any:
        done = step(self, *arguments, **options)
        trained = [parameter for group in self.param_groups for parameter in group["params"]]
        states = [value for parameter in trained for value in self.state[parameter].values() if value.dim()]
        kept.append(sum(part.nbytes for parameter in trained for part in (parameter, parameter.grad)))
        kept[-1] += sum(state.nbytes for state in states)
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    with live() as tensors:
        plugins.load("methods", method).fit(replace(job, dtype=dtype))
    reckoned = terms(need)
    adapter = model.adapter(job.settings.adapter)
    frozen = 4 * model.parameters if adapter else 0
    assert kept[-1] == reckoned["weights"] + reckoned["gradients"] + reckoned["optimiser"] - frozen
    # A CPU copies a tile of logits while it folds it; the reckoning is that of a GPU, which does not.
    folded = 32 * 2 * 2 * 384 * model.vocabulary if method == "dpo" else 0
    assert need.least <= tensors.peak <= need.most + folded
    assert need.most <= SLACK * tensors.peak


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_tensors_of_learned_coefficients_lie_between_both_sums(dtype: str, root: Path, tmp_path: Path) -> None:
    settings = {"vectors": ["a", "b"], "steps": 2, "check_steps": 2, "batch_size": 4, "rows_at_once": 2}
    arms = {name: pico_arms.full(root, tmp_path / name, seed) for seed, name in enumerate(("a", "b"), 1)}
    rows = {"d": long_rows(4)}
    job = fitting.job("atlas", [root], tmp_path / "out", datasets=rows, arms=arms, data="d", max_length=384, **settings)
    with live() as tensors:
        atlas.fit(replace(job, dtype=dtype))
    need = fit_of(model_sizes.model(root.parent), "atlas", dtype, max_length=384, **settings)
    vectors = terms(need)["vectors"]  # they stay on the disk where there is no GPU
    assert need.least <= tensors.peak <= need.most - vectors <= SLACK * tensors.peak


@pytest.mark.parametrize(("dtype", "temperature"), [("float32", 0.0), ("bfloat16", 1.0)])
def test_the_tensors_of_an_engine_lie_between_both_sums(
    dtype: str, temperature: float, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_as_a_gpu(monkeypatch)
    with live() as tensors:
        engine = transformers.start([root], dtype, "cpu", 8)
        engine.ends = set()
        texts = [f"{i} {'word and sea ' * 20}" for i in range(8)]
        engine.generate([Prompt(text, 200, (), temperature, 0.9, i) for i, text in enumerate(texts)])
    monkeypatch.setattr(gpu_memory, "PROMPT", max(len(engine.tokens(text)) for text in texts))
    model = model_sizes.model(root.parent)
    assert model is not None
    need = gpu_memory.of_engine(model, dtype, 8, 200)
    assert need.least == model.parameters * (4 if dtype == "float32" else 2)
    assert need.least <= tensors.peak <= need.most
    assert need.most <= 4 * tensors.peak, "most of it are masks, of which a kernel may make copies that are not seen"


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Model:
    model = model_sizes.model(sized.make(tmp_path_factory.mktemp("models") / "qwen", sized.QWEN_7B))
    assert model is not None
    return model


def refusal(model: Model | None, method: str, gb: float | None, ranks: int = 1, **settings: Any) -> str:
    plug = Plug(name=method, settings=plugins.load("methods", method).Settings(**settings).model_dump(mode="json"))
    try:
        gpu_memory.check("tuned", plug, model, "bfloat16", gb, ranks)
    except ImprintError as error:
        return str(error)
    return ""


def test_a_refusal_says_how_much_of_what_and_the_smallest_change(qwen: Model) -> None:
    said = refusal(qwen, "sft", 80, data="d", batch_size=32, max_length=2048)
    assert said.startswith(
        "the fit of arm 'tuned' (sft) needs at least 122 GB on a GPU, which has 80 GB here (`gpu_memory_gb`): weights "
        "30.5, optimiser 60.9, gradients 30.5. With `resources: {gpu: 16}` it needs 7.62 to "
    )
    assert (
        " GB on each, which fits; with `lora: {rank: 16}, gradient_checkpointing: true, micro_batch_size: 1` it needs "
        "31.1 to "
    ) in said
    assert "which fits. As it is, it fits on a GPU with " in said
    less = refusal(qwen, "sft", 80, data="d", batch_size=1, max_length=192)
    assert "with `lora: {rank: 16}` it needs 31.1 to" in less, "what is small already is not made smaller"


def test_what_is_not_certain_is_not_refused(qwen: Model) -> None:
    least = fit_of(qwen, "sft").least / GB
    assert refusal(qwen, "sft", least, data="d") == "" != refusal(qwen, "sft", math.floor(least), data="d")
    for gb in (None, 0):
        assert refusal(qwen, "sft", gb, data="d") == "", "nobody says how much there is"
    assert refusal(None, "sft", 1, data="d") == "", "nobody knows how large the model is"
    assert refusal(qwen, "task_arithmetic", 1, vectors=["a"], scale=1.0) == "", "the method does not say what it holds"


def test_a_change_that_may_fit_names_what_is_left(qwen: Model) -> None:
    settings = {"data": "d", "reward": ["ifeval"], "prompts_per_step": 128, "completion_tokens": 2048, "beta": 0.001}
    said = refusal(qwen, "grpo", 80, **settings, micro_batch_size=8, gradient_checkpointing=True)
    assert "with `lora: {rank: 16}` it needs 46.3 to" in said and "may fit (at most: cache" in said
    assert "so take a smaller model" in refusal(qwen, "sft", 20, data="d")


def test_ranks_share_the_models_weights_and_the_rows(qwen: Model) -> None:
    """What they do not share: an adapter, autocast's copies, and the layer that is being computed."""
    settings = {"data": "d", "batch_size": 32, "max_length": 2048}
    plug = Plug(name="sft", settings=plugins.load("methods", "sft").Settings(**settings).model_dump(mode="json"))
    one, four = (gpu_memory.fit(qwen, plug, "bfloat16", ranks) for ranks in (1, 4))
    assert one and four and abs(one.least - 4 * four.least) < 100
    alone, shared = terms(one), terms(four)
    assert shared.pop("whole weights") > 4 * qwen.head and shared.keys() == alone.keys()
    assert shared["activations"] == alone["activations"] // 4 and shared["logits"] == alone["logits"] // 4
    assert shared["weights in bf16"] == alone["weights in bf16"]
    small = plug.model_copy(update={"settings": {**plug.settings, "micro_batch_size": 2, "lora": {"rank": 16}}})
    alone, shared = (terms(need) for n in (1, 4) if (need := gpu_memory.fit(qwen, small, "bfloat16", n)))
    for same in ("optimiser", "gradients", "activations", "logits"):
        assert shared[same] == alone[same], "an adapter is whole in each rank, and a pass has two rows"
    assert shared["weights"] == qwen.parameters + (alone["weights"] - 4 * qwen.parameters)


def test_ranks_share_the_reference_of_a_rollout_and_have_a_whole_copy_that_draws(qwen: Model) -> None:
    """Each rank draws its part of the completions. It reads prompts with each completion, and its logits are tiles."""
    settings = {"beta": 0.1, "prompts_per_step": 64, "updates_per_rollout": 4, "completion_tokens": 1024}
    alone, shared = (terms(fit_of(qwen, "grpo", ranks=ranks, **settings)) for ranks in (1, 8))
    for name in ("weights", "optimiser", "reference", "gradients"):
        assert shared[name] == alone[name] // 8, name
    assert alone["reference"] == 2 * qwen.parameters, "in bf16, as what draws"
    assert shared["sampler"] == alone["sampler"] == 2 * qwen.parameters
    of_rank = fit_of(qwen, "grpo", **{**settings, "prompts_per_step": 8}, gradient_checkpointing=True)
    assert shared["logits"] == terms(of_rank)["logits"] < alone["logits"] // 8
    drawing = grpo.Settings(data="d", reward=["ifeval"], **settings)
    assert [grpo.holds(drawing, ranks).sampled for ranks in (1, 2, 8)] == [256, 256, 64]


def test_a_refusal_names_the_fewest_gpus_that_have_room(qwen: Model) -> None:
    settings = {"data": "d", "batch_size": 32, "max_length": 2048, "gradient_checkpointing": True}
    said = refusal(qwen, "sft", 80, **settings)
    assert "With `resources: {gpu: 8}` it needs 15.2 to 63 GB on each, which fits; with `lora: {rank: 16}" in said
    assert "needs at least 60.9 GB on each of 2 GPUs, which have 40 GB here" in refusal(qwen, "sft", 40, 2, **settings)
    assert refusal(qwen, "sft", 80, 2, **settings) == ""
    assert "More GPUs are no help, as many as can share an update" in refusal(qwen, "sft", 20, data="d")
    assert "runs on one GPU, so more of them are no help" in refusal(qwen, "dpo", 20, data="d")


def test_terms_are_words() -> None:
    need = Need((Term("weights", 3 * GB, True), Term("sampler", 0, True), Term("logits", 150 * GB, False)))
    assert (need.range, need.exact, need.bounds) == ("3 to 153", "weights 3", "logits 150")
