"""The constant hook: what it adds and where, what it refuses, and that strength 0 is the model as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

import generated
import pico
import pico_arms
from conftest import one_fit
from generated import QUESTIONS, plug
from imprint.config import loading
from imprint.engines import Candidates, Pass, Prompt, Response
from imprint.engines.transformers import Engine
from imprint.hooks.constant import Settings, install
from imprint.models.model_files import load_tokenizer
from imprint.runtime.errors import ImprintError
from imprint.tables.inputs import Read

WIDTH = 32
VECTOR = [0.5 - 0.1 * (place % 11) for place in range(WIDTH)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return pico.make(tmp_path_factory.mktemp("pico"))


@pytest.fixture
def model(folder: Path) -> Any:
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(folder).eval()


def outputs(model: Any, ids: Any) -> Iterator[Any]:
    """What each layer gives for token ids, and the logits."""
    seen: list[Any] = []
    handles = [layer.register_forward_hook(lambda _, given, out: seen.append(out)) for layer in model.model.layers]
    with torch.inference_mode():
        logits = model(ids).logits
    for handle in handles:
        handle.remove()
    return iter([*seen, logits])


IDS = torch.tensor([[1, 70, 80, 90, 100]])


@pytest.mark.parametrize("add", [0.75, VECTOR])
@pytest.mark.parametrize("layer", [0, 1])
def test_it_adds_strength_times_the_constant_to_one_layer_at_every_position(model: Any, add: Any, layer: int) -> None:
    plain = list(outputs(model, IDS))
    install(model, Settings(add=add, layer=layer, strength=-2.0), Read(), Pass())
    hooked = list(outputs(model, IDS))
    for before in range(layer):
        assert torch.equal(hooked[before], plain[before])
    expected = plain[layer] + (-2.0 * torch.tensor(add, dtype=torch.float64)).float()
    assert torch.equal(hooked[layer], expected) and hooked[layer].shape == (1, 5, WIDTH)
    assert not torch.equal(hooked[-1], plain[-1])


def test_several_hooks_add_up(model: Any) -> None:
    (plain, *_) = outputs(model, IDS)
    for strength in (1.0, 2.0):
        install(model, Settings(add=VECTOR, layer=0, strength=strength), Read(), Pass())
    (hooked, *_) = outputs(model, IDS)
    assert torch.allclose(hooked - plain, 3 * torch.tensor(VECTOR), atol=1e-5)


def test_strength_zero_is_the_model_as_it_is(model: Any) -> None:
    plain = list(outputs(model, IDS))
    for add in (0.75, VECTOR, -0.0):
        install(model, Settings(add=add, layer=1, strength=0.0), Read(), Pass())
    assert all(torch.equal(a, b) for a, b in zip(outputs(model, IDS), plain, strict=True))


def test_it_keeps_the_number_format(model: Any) -> None:
    model.to(torch.bfloat16)
    install(model, Settings(add=VECTOR, layer=0), Read(), Pass())
    assert {output.dtype for output in outputs(model, IDS)} == {torch.bfloat16}


def test_a_layer_that_gives_more_than_activations_keeps_the_rest(model: Any) -> None:
    layer = model.model.layers[0]
    forward = layer.forward
    layer.forward = lambda *args, **given: (forward(*args, **given), "more")
    seen: list[Any] = []
    install(model, Settings(add=1.0, layer=0), Read(), Pass())
    layer.register_forward_hook(lambda _, given, out: (seen.append(out), out[0])[1])
    with torch.inference_mode():
        model(IDS)
    assert seen[0][1] == "more" and seen[0][0].shape == (1, 5, WIDTH)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"add": 1.0, "layer": 2}, "found layer 2, but the model has 2; write one of 0 to 1"),
        ({"add": 1.0, "layer": 2**63}, f"found layer {2**63}, but the model has 2"),
        ({"add": 1.0, "layer": 2, "strength": 0.0}, "found layer 2, but the model has 2"),
        ({"add": VECTOR[1:], "layer": 0}, "`add` has 31 numbers, but the model's hidden size is 32"),
        ({"add": [], "layer": 0}, "`add` has 0 numbers"),
        ({"add": [1.0], "layer": 0}, "`add` has 1 numbers"),
        ({"add": 1e30, "layer": 0, "strength": 1e30}, r"more than torch\.float32 can hold"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_refused(model: Any, settings: dict[str, Any], said: str) -> None:
    plain = list(outputs(model, IDS))
    with pytest.raises(ImprintError, match=said):
        install(model, Settings(**settings), Read(), Pass())
    assert all(torch.equal(a, b) for a, b in zip(outputs(model, IDS), plain, strict=True)), "nothing is registered"


def test_a_model_whose_layers_cannot_be_found_is_refused(model: Any) -> None:
    model.config.num_hidden_layers = 3
    with pytest.raises(ImprintError, match="no list of its 3 layers"):
        install(model, Settings(add=1.0, layer=0), Read(), Pass())


@pytest.mark.parametrize(
    "wrong",
    [{"layer": 0}, {"add": 1.0}, {"add": 1.0, "layer": -1}, {"add": float("nan"), "layer": 0}, {"add": "1", "layer": 0},
     {"add": [True], "layer": 0}, {"add": 1.0, "layer": 0, "strength": float("inf")}],
)  # fmt: skip
def test_settings_that_mean_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


def same(left: list[Response], right: list[Response]) -> None:
    """Equal in all but wall time and the last bits of the log-probabilities."""
    for a, b in zip(left, right, strict=True):
        assert a.logprob_sum == pytest.approx(b.logprob_sum, abs=1e-3)
        assert (a.text, a.finish_reason, a.response_tokens) == (b.text, b.finish_reason, b.response_tokens)


def test_padding_and_neighbours_change_nothing(folder: Path, model: Any) -> None:
    """Prompts of unequal length are padded at the left, where the constant is added too."""
    engine = Engine(model, load_tokenizer(folder), batch_size=8)
    prompts = [Prompt(engine.render([{"role": "user", "content": text}]).text, 12) for text in QUESTIONS]
    options = [Candidates(prompt.text, ("yes", "perhaps the sea")) for prompt in prompts]
    plain = engine.generate(prompts)
    install(model, Settings(add=VECTOR, layer=0, strength=1.5), Read(), Pass())
    hooked = engine.generate(prompts)
    assert all(a.text != b.text for a, b in zip(hooked, plain, strict=True))
    same(hooked, [engine.generate([one])[0] for one in prompts])
    for together, one in zip(engine.loglikelihood(options), options, strict=True):
        same(together, engine.loglikelihood([one])[0])


# ---- through the job


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_arms.root(tmp_path_factory.mktemp("model") / "pico")


@pytest.mark.parametrize("ask", ["generate", "loglikelihood"])
def test_an_arm_with_it_answers_otherwise_and_at_strength_zero_as_its_base(
    manifest: Path, tmp_path: Path, ask: str
) -> None:
    data = generated.dataset(tmp_path / "data.parquet")

    def run(*strengths: float) -> list[dict[str, Any]]:
        hooks = [plug("constant", add=VECTOR, layer=1, strength=strength) for strength in strengths]
        rows, _ = generated.run(tmp_path, [manifest], data, ask=ask, hooks=hooks)
        assert all(row["error"] is None for row in rows)
        return rows

    base = run()
    assert run(0.0) == base, "bit for bit"
    hooked = run(1.0)
    assert len(hooked) == len(base) == len(QUESTIONS) * (3 if ask == "loglikelihood" else 1)
    assert all(a["logprob_sum"] != b["logprob_sum"] for a, b in zip(hooked, base, strict=True))
    assert run(0.25, 0.75)[0]["logprob_sum"] == pytest.approx(hooked[0]["logprob_sum"], abs=1e-3)


def test_a_job_with_a_hook_that_does_not_fit_stops(manifest: Path, tmp_path: Path) -> None:
    data = generated.dataset(tmp_path / "data.parquet")
    with pytest.raises(ImprintError, match="found layer 9"):
        generated.run(tmp_path, [manifest], data, hooks=[plug("constant", add=1.0, layer=9)])
    assert not generated.path(tmp_path).exists()


# ---- in a config


def test_a_config_with_it_loads_and_plans() -> None:
    hooks = [{"constant": {"add": VECTOR, "layer": 3, "strength": -0.5}}, {"constant": {"add": 1, "layer": 0}}]
    raw = loading.merge(one_fit(), {"arms": {"pushed": {"parent": "tuned", "apply": {"hooks": hooks}}}})
    generate = generated.plan(raw)["generate"]
    (job,) = [job for job in generate.jobs() if job.arm == "pushed"]
    assert generate.spec(job).policy.hooks == [  # type: ignore[attr-defined]
        plug("constant", add=VECTOR, layer=3, strength=-0.5),
        plug("constant", add=1.0, layer=0, strength=1.0),
    ]
    assert "hooks/constant.py" in generate.code(job)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("constant", r"arms\.pushed\.apply\.hooks\[0\]\.add: missing"),
        ({"constant": 1.0}, r"arms\.pushed\.apply\.hooks\[0\]\.layer: missing"),
        ({"constant": {"add": 1.0, "layer": -1}}, r"hooks\[0\]\.layer: found -1"),
        ({"constant": {"add": 1.0, "layer": 0, "strenght": 2.0}}, "unknown key 'strenght'"),
    ],
)
def test_a_config_that_misuses_it_is_told_where(settings: Any, said: str) -> None:
    raw = loading.merge(one_fit(), {"arms": {"pushed": {"parent": "tuned", "apply": {"hooks": settings}}}})
    with pytest.raises(ImprintError, match=said):
        loading.parse(raw)
