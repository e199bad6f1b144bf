"""Hooks know the pass they stand in; directions and head gates are found, applied and resumed as their modules say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import fitting
import pico
import pico_arms
from imprint.analyses import Analysis
from imprint.analyses import gates as gates_analysis
from imprint.artifacts import hooks
from imprint.composition.settings import Rows
from imprint.engines import Candidates, Pass, Prompt
from imprint.engines.transformers import Engine
from imprint.hooks import direction, head_gates
from imprint.methods import direction as direction_method
from imprint.methods import head_gates as gates_method
from imprint.models import layers
from imprint.models.model_files import load_tokenizer
from imprint.policies.recording import record
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_json, write_json
from imprint.runtime.plugins import Plug
from imprint.tables.inputs import Read

TEXTS = ["Hello", "What is the sum of two and two?", "x", "You are" * 9]
LAYERS, WIDTH, HEADS = 2, 32, 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return pico_arms.root(tmp_path_factory.mktemp("pico"))


def engine(base: Path, batch_size: int = 4) -> Engine:
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(base.parent, dtype="float32").eval()
    return Engine(model, load_tokenizer(base.parent), batch_size)


def found(layer: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    differences = torch.randn(LAYERS, WIDTH, generator=draw)
    return {"differences": differences, "norms": torch.tensor([2.0, 3.0]), "layer": torch.tensor(float(layer))}


def settings(**keys: Any) -> direction.Settings:
    return direction.Settings.model_validate({"of": "a", **keys})


def test_the_model_is_as_the_tests_say(base: Path) -> None:
    model = engine(base).model
    assert (len(layers.layers(model, "t")), model.config.hidden_size, layers.heads(model)) == (LAYERS, WIDTH, HEADS)


class Seen:
    """What a pass holds at the positions of a hook, by column from the first real token of a row on."""

    def __init__(self, made: Engine) -> None:
        self.columns: list[tuple[bool, dict[str, Any]]] = []
        made.model.register_forward_pre_hook(lambda *_: self.note(made.passing))

    def note(self, passing: Pass) -> None:
        at = {name: passing.at(name) for name in ("all", "prompt", "last_prompt", "written")}  # type: ignore[arg-type]
        self.columns.append((passing.written, {name: None if m is None else m.clone() for name, m in at.items()}))


def test_a_pass_says_which_columns_are_padding_prompt_or_written(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine(base)
    monkeypatch.setattr("imprint.engines.transformers.PREFILL", 4 * 5)  # segments of five columns
    seen = Seen(made)
    made.generate([Prompt(text, 3) for text in TEXTS])
    prompts = [at for written, at in seen.columns if not written]
    assert len(prompts) > 1 and all(at["last_prompt"] is None for at in prompts[:-1])
    lengths = [len(made.tokens(text)) for text in TEXTS]
    assert sum(at["prompt"].sum(1) for at in prompts).tolist() == sorted(lengths, reverse=True)
    assert prompts[-1]["last_prompt"].sum(1).tolist() == [1] * 4 and prompts[-1]["last_prompt"][:, -1].all()
    written = [at for is_written, at in seen.columns if is_written]
    assert written and all(at["prompt"] is None and at["last_prompt"] is None for at in written)
    assert all(at["written"].all() and at["written"].shape[1] == 1 for at in written)


def test_scored_continuations_are_written_and_their_padding_is_not(base: Path) -> None:
    made = engine(base)
    seen = Seen(made)
    made.loglikelihood([Candidates("Hello", (" yes", " perhaps the sea"))])
    (_, at) = seen.columns[-1]
    lengths = [len(made.tokens(text)) - 1 for text in (" yes", " perhaps the sea")]
    assert sorted(at["written"].sum(1).tolist()) == sorted(length for length in lengths if length)


POSITIONS = ["all", "prompt", "last_prompt", "written"]


def _uncached(made: Engine, prompt: list[int], continuation: list[int], change: dict[str, Any]) -> torch.Tensor:
    """Logits of a prompt and its continuation in one pass without a cache; the layer is changed where it should be."""
    ids = torch.tensor([prompt + continuation])
    at = torch.zeros(1, ids.shape[1], dtype=torch.bool)
    start, end = {
        "all": (0, None),
        "prompt": (0, len(prompt)),
        "last_prompt": (len(prompt) - 1, len(prompt)),
        "written": (len(prompt), None),
    }[change["positions"]]
    at[:, start:end] = True
    here = Pass()
    here.begin(at, written=False, ends=False)
    handle = direction.steer(made.model, found(), settings(**{**change, "positions": "all"}), here)
    with torch.inference_mode():
        logits: torch.Tensor = made.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    handle.remove()
    return logits


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("change", ["add", "project_out"])
def test_cached_decoding_and_scoring_equal_one_pass_without_a_cache(base: Path, positions: str, change: str) -> None:
    keys = {"positions": positions, "change": change, "strength": 0.7, "layer": 0}
    made, plain = engine(base), engine(base)
    direction.steer(made.model, found(), settings(**keys), made.passing)
    responses = made.generate([Prompt(text, 5) for text in TEXTS])
    assert [r.text for r in responses] == [made.generate([Prompt(text, 5)])[0].text for text in TEXTS]
    asked = [Candidates(text, (" yes it is", " no")) for text in TEXTS]
    scored = made.loglikelihood(asked)
    for text, options in zip(TEXTS, scored, strict=True):
        prompt = made.tokens(text)
        for option in options:
            tail = made.tokens(option.text or "")
            logits = _uncached(plain, prompt, tail, keys).log_softmax(1)
            total = sum(float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(tail))
            assert option.logprob_sum == pytest.approx(total, abs=1e-4)
    for text, response in zip(TEXTS, responses, strict=True):
        prompt, tokens = plain.tokens(text), list[int]()
        for _ in range(response.response_tokens or 0):
            tokens.append(int(_uncached(plain, prompt, tokens, keys)[-1].argmax()))
        kept = [token for token in tokens if token not in plain.ends]
        assert plain.tokenizer.decode(kept, skip_special_tokens=True) == response.text


def test_strength_zero_is_the_model_to_the_bit(base: Path) -> None:
    plain, made = engine(base), engine(base)
    assert direction.steer(made.model, found(), settings(strength=0.0), made.passing) is None
    for text in TEXTS:
        one, other = (each.generate([Prompt(text, 6)])[0] for each in (plain, made))
        assert (one.text, one.logprob_sum) == (other.text, other.logprob_sum)


def test_a_removed_hook_leaves_no_trace(base: Path) -> None:
    plain, made = engine(base), engine(base)
    handle = direction.steer(made.model, found(), settings(strength=2.0), made.passing)
    changed = made.generate([Prompt("Hello", 6)])[0].logprob_sum
    handle.remove()
    after, before = (each.generate([Prompt("Hello", 6)])[0].logprob_sum for each in (made, plain))
    assert after == before != changed


def test_the_step_is_in_mean_norms_and_a_projection_takes_the_part_away(base: Path) -> None:
    made = engine(base)
    unit = torch.nn.functional.normalize(found()["differences"][1], dim=0)
    made.passing.begin(torch.tensor([[False, True, True]]), written=False, ends=True)
    layer, hidden = layers.layers(made.model, "t")[1], torch.randn(1, 3, WIDTH)
    seen: dict[str, torch.Tensor] = {}
    for change in ("add", "project_out"):
        handle = direction.steer(made.model, found(), settings(change=change, layer=1, strength=1.0), made.passing)
        (hook,) = layer._forward_hooks.values()
        seen[change] = hook(layer, (), hidden)
        handle.remove()
    step = seen["add"] - hidden
    assert torch.equal(seen["add"][0, 0], hidden[0, 0])  # padding
    assert torch.allclose(step[0, 1:], 3.0 * unit.expand(2, -1), atol=1e-5)
    assert torch.allclose(seen["project_out"][0, 1:] @ unit, torch.zeros(2), atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"layer": 2}, "found layer 2, but the model has 2; write one of 0 to 1"),
        ({}, "2 layers of width 16, and the model has 2 of width 32"),
    ],
)
def test_what_does_not_fit_is_refused_before_an_answer(base: Path, wrong: dict[str, Any], says: str) -> None:
    made = engine(base)
    tensors = found() if wrong else {**found(), "differences": torch.ones(2, 16)}
    with pytest.raises(ImprintError, match=says):
        direction.steer(made.model, tensors, settings(**wrong), made.passing)


def test_no_number_that_is_not_finite_is_written(tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="not finite"):
        hooks.write(tmp_path, {"norms": torch.tensor([1.0, float("nan")])})


def artifact(base: Path, folder: Path) -> list[Path]:
    """The manifest of a fit that has written hooks into `folder`."""
    template = read_json(base)["template_sha256"]
    write_json(
        folder / "manifest.json", {"kind": "hooks", "arm": "made", "fingerprint": "f", "template_sha256": template}
    )
    return [base, pico.sums(folder / "manifest.json")]


def test_tensors_of_another_method_and_other_artifacts_are_refused(base: Path, tmp_path: Path) -> None:
    hooks.write(tmp_path, found())
    read = Read(arms={"a": artifact(base, tmp_path)})
    made = engine(base)
    with pytest.raises(ImprintError, match="'made' has differences, layer, norms, and embedding, logits are needed"):
        head_gates.install(made.model, head_gates.Settings.model_validate({"of": "a"}), read, made.passing)
    with pytest.raises(ImprintError, match="kind 'model'; name an arm whose method makes hooks"):
        direction.install(made.model, settings(), Read(arms={"a": [base]}), made.passing)
    direction.install(made.model, settings(strength=3.0), read, made.passing)
    assert made.generate([Prompt("Hello", 4)]) != engine(base).generate([Prompt("Hello", 4)])


# Recording


def _inside(made: Engine, ids: torch.Tensor, site: str) -> list[torch.Tensor]:
    """What the layers of the model hold at a site for token ids."""
    inside: list[torch.Tensor] = []
    if site == "residual":
        handles = [
            module.register_forward_hook(lambda _, given, out: inside.append(layers.activations(out)))
            for module in layers.layers(made.model, "t")
        ]
    else:
        handles = [
            module.register_forward_pre_hook(lambda _, given: inside.append(given[0]))
            for module in layers.output_projections(made.model, "t")
        ]
    with torch.inference_mode():
        made.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    for handle in handles:
        handle.remove()
    return inside


@pytest.mark.parametrize("site", ["residual", "heads"])
def test_what_is_recorded_is_what_the_layers_give(base: Path, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine(base)
    monkeypatch.setattr("imprint.engines.transformers.PREFILL", 4 * 5)
    texts = [made.render([{"role": "user", "content": text}]) for text in TEXTS]
    recorded = {positions: record(made, texts, positions, site) for positions in ("last_prompt", "prompt")}
    for row, text in enumerate(texts):
        ids = torch.tensor([made.tokens(*text)])
        stacked = torch.stack(_inside(made, ids, site))[:, 0]
        assert torch.allclose(recorded["last_prompt"][row], stacked[:, -1], atol=1e-4)
        assert torch.allclose(recorded["prompt"][row], stacked.mean(1), atol=1e-4)


# Fits

ROWS = fitting.dialogues(12)
PAIRS = fitting.named(
    [
        {
            "messages": [{"role": "user", "content": f"word {i}"}, {"role": "assistant", "content": f"drow {i % 3}"}],
            "reference": {"answer": f"drow {i % 3}"},
        }
        for i in range(9)
    ]
)
SETS = {"toward": Rows.model_validate({"d": "role_play"}), "away": Rows.model_validate({"d": "plain"})}


def fit_direction(base: Path, out: Path, seed: int = 0, **keys: Any) -> dict[str, Any]:
    job = fitting.job("direction", [base], out, seed=seed, datasets={"d": ROWS, "c": ROWS[:3]}, **{**SETS, **keys})
    return direction_method.fit(job)


def test_a_direction_is_the_difference_of_means_at_each_layer(base: Path, tmp_path: Path) -> None:
    metrics = fit_direction(base, tmp_path, layer=1)
    made = engine(base, 32)
    asked = [[{"role": "user", "content": row["messages"][0]["content"]}] for row in ROWS if len(row["messages"]) == 2]
    assert metrics["toward"] == metrics["away"] == len(ROWS) > len(asked)
    tensors = load_file(tmp_path / "weights" / hooks.FILE)
    assert tensors["differences"].shape == (LAYERS, WIDTH) and float(tensors["layer"]) == 1
    fit_direction(base, tmp_path / "same", layer=1, toward=SETS["away"])
    assert torch.count_nonzero(load_file(tmp_path / "same/weights" / hooks.FILE)["differences"]) == 0
    away = record(made, [made.render(messages) for messages in asked], "last_prompt", "residual")
    assert tensors["norms"].shape == (LAYERS,) and float(torch.linalg.vector_norm(away[0, 0])) > 0


def test_controls_are_as_long_as_the_direction_and_depend_on_the_seed(base: Path, tmp_path: Path) -> None:
    made = {}
    for name, keys in {"true": {}, "random": {"instead": "random"}, "permuted": {"instead": "permuted"}}.items():
        for seed in (0, 1):
            fit_direction(base, tmp_path / name / str(seed), seed, layer=0, **keys)
            made[name, seed] = load_file(tmp_path / name / str(seed) / "weights" / hooks.FILE)["differences"]
    lengths = {key: torch.linalg.vector_norm(each, dim=1) for key, each in made.items()}
    assert torch.equal(made["true", 0], made["true", 1])
    for control in ("random", "permuted"):
        assert torch.allclose(lengths[control, 0], lengths["true", 0], rtol=1e-4)
        assert not torch.allclose(made[control, 0], made[control, 1])
        assert not torch.allclose(made[control, 0], made["true", 0])


def test_a_direction_that_draws_nothing_is_one_for_all_seeds() -> None:
    def draws(**keys: Any) -> bool:
        return direction_method.draws(direction_method.Settings.model_validate({**SETS, "layer": 0, **keys}))

    assert not draws() and draws(rows=4) and draws(instead="random") and draws(instead="permuted")


def test_the_layer_is_the_one_at_which_the_answers_are_likeliest(base: Path, tmp_path: Path) -> None:
    choose = {"c": "plain"}
    metrics = fit_direction(base, tmp_path, choose=choose)
    from imprint.runtime import parquet

    losses = {row["step"]: row["value"] for row in parquet.read(tmp_path / "curves.parquet", "curves").to_pylist()}
    assert set(losses) == {0, 1} and metrics["layer"] == min(losses, key=lambda layer: losses[layer])
    with pytest.raises(ValueError, match="exactly one of `layer: NUMBER` and `choose"):
        direction_method.Settings.model_validate({**SETS, "layer": 1, "choose": choose})
    with pytest.raises(ImprintError, match="found layer 7, but the model has 2"):
        fit_direction(base, tmp_path / "x", layer=7)


def fit_gates(base: Path, out: Path, **keys: Any) -> dict[str, Any]:
    datasets = {"t": PAIRS, "v": PAIRS[:2]}
    chosen = {"data": "t", "shots": 3, "prompts": 4, "steps": 4, "check_steps": 2, **keys}
    arms = {"other": chosen.pop("other")} if "other" in chosen else {}
    return gates_method.fit(fitting.job("head_gates", [base], out, datasets=datasets, arms=arms, **chosen))


def test_gates_are_learned_and_the_embedding_is_the_mean_of_the_heads(base: Path, tmp_path: Path) -> None:
    metrics = fit_gates(base, tmp_path, validation="v")
    tensors = load_file(tmp_path / "weights" / hooks.FILE)
    assert tensors["embedding"].shape == (LAYERS, HEADS, WIDTH // HEADS) and tensors["logits"].shape == (LAYERS, HEADS)
    assert tensors["logits"].abs().max() > 0 and metrics["gates"] == 8 and metrics["best_step"] in (2, 4)


def test_gates_are_learned_under_the_contexts_of_the_fit(base: Path, tmp_path: Path) -> None:
    contexts = [Plug(name="instruction", settings={"text": "Say the opposite."})]
    found = {}
    for name, more in (("plain", {}), ("instruction", {"contexts": contexts})):
        fit_gates(base, tmp_path / name, **more)
        found[name] = load_file(tmp_path / name / "weights" / hooks.FILE)
    for tensor in ("embedding", "logits"):
        assert not torch.allclose(found["plain"][tensor], found["instruction"][tensor])


def test_a_killed_fit_of_gates_goes_on_to_the_same_bits(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_gates(base, tmp_path / "whole", steps=6)
    update = gates_method._Gates.update

    def killed(gates: Any, loss: Any) -> float:
        if gates.step == 3:
            raise KeyboardInterrupt
        return update(gates, loss)

    with monkeypatch.context() as patch:
        patch.setattr(gates_method._Gates, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            fit_gates(base, tmp_path / "killed", steps=6)
    fit_gates(base, tmp_path / "killed", steps=6)
    for file in ("weights/hooks.safetensors", "curves.parquet"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes()


def test_another_arms_embedding_gets_gates_of_its_own(base: Path, tmp_path: Path) -> None:
    fit_gates(base, tmp_path / "other")
    other = load_file(tmp_path / "other/weights" / hooks.FILE)["embedding"]
    save_file({"embedding": other + 1, "logits": torch.zeros(LAYERS, HEADS)}, tmp_path / "other/weights" / hooks.FILE)
    fit_gates(base, tmp_path / "own", embedding_of="other", other=artifact(base, tmp_path / "other"))
    own = load_file(tmp_path / "own/weights" / hooks.FILE)
    assert torch.equal(own["embedding"], other + 1) and own["logits"].abs().max() > 0


def test_the_gates_gradient_is_the_slope_of_the_loss(base: Path) -> None:
    made = engine(base)
    draw = torch.Generator().manual_seed(1)
    embedding = torch.randn(LAYERS, HEADS, WIDTH // HEADS, generator=draw)
    made.model.double().requires_grad_(False)
    logits = torch.randn(LAYERS, HEADS, generator=draw, dtype=torch.float64).requires_grad_()
    head_gates.inject(made.model, embedding, logits, made.passing)
    asked = [gates_method.Question(made.tokens(TEXTS[1]), first) for first in (5, 9)]
    gates_method._loss(made, asked).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    for place in [(0, 0), (1, 2), (1, 3)]:
        slopes = []
        for sign in (1, -1):
            with torch.no_grad():
                logits[place] += sign * 1e-2
                slopes.append(float(gates_method._loss(made, asked)))
                logits[place] -= sign * 1e-2
        assert float(logits.grad[place]) == pytest.approx((slopes[0] - slopes[1]) / 2e-2, rel=2e-2, abs=1e-6)


def test_gates_act_at_the_last_prompt_token_alone_and_controls_are_what_they_say(base: Path, tmp_path: Path) -> None:
    fit_gates(base, tmp_path)
    read = Read(arms={"a": artifact(base, tmp_path)})
    embedding = load_file(tmp_path / "weights" / hooks.FILE)["embedding"]

    def heads_of(**keys: Any) -> torch.Tensor:
        made = engine(base)
        head_gates.install(made.model, head_gates.Settings.model_validate({"of": "a", **keys}), read, made.passing)
        return record(made, [made.render([{"role": "user", "content": "x"}])], "last_prompt", "heads")[0]

    plain = heads_of(strength=0.0)
    half = heads_of(gates="half").view(LAYERS, HEADS, -1)
    assert torch.allclose(half[0], (plain.view(LAYERS, HEADS, -1)[0] + embedding[0]) / 2, atol=1e-5)
    shuffled = [heads_of(gates="shuffled", seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(shuffled[0], shuffled[1]) and not torch.equal(shuffled[0], shuffled[2])


def test_the_analysis_of_gates_reads_each_head_of_each_layer(base: Path, tmp_path: Path) -> None:
    fit_gates(base, tmp_path)
    settings = gates_analysis.Settings(arms=["a"])
    assert gates_analysis.inputs(settings).arms == ("a",)
    rows = list(gates_analysis.rows(Analysis(0, settings, Read(arms={"a": artifact(base, tmp_path)}))))
    logits = load_file(tmp_path / "weights" / hooks.FILE)["logits"]
    assert [(row["layer"], row["kind"]) for row in rows] == [
        (i, f"head {j}") for i in range(LAYERS) for j in range(HEADS)
    ]
    assert [row["value"] for row in rows] == pytest.approx(logits.sigmoid().flatten().tolist())
    hooks.write(tmp_path / "direction", found())
    other = Read(arms={"a": artifact(base, tmp_path / "direction")})
    with pytest.raises(ImprintError, match="analysis 'gates': arm 'made' has differences, layer, norms"):
        list(gates_analysis.rows(Analysis(0, settings, other)))


# What is refused


@pytest.mark.parametrize("shape", [(LAYERS + 1, HEADS, WIDTH // HEADS), (LAYERS, HEADS, 3), (LAYERS, 2, WIDTH // 2)])
def test_gates_of_another_model_are_refused(base: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    hooks.write(tmp_path, {"embedding": torch.zeros(shape), "logits": torch.zeros(shape[:2])})
    made, read = engine(base), Read(arms={"a": artifact(base, tmp_path)})
    with pytest.raises(ImprintError, match="name an arm of this model"):
        head_gates.install(made.model, head_gates.Settings.model_validate({"of": "a"}), read, made.passing)
    with pytest.raises(ImprintError, match="name an arm of this model"):
        fit_gates(base, tmp_path / "own", embedding_of="other", other=artifact(base, tmp_path))


def test_a_task_without_rows_is_named(base: Path, tmp_path: Path) -> None:
    empty = {"datasets": {"t": [], "v": [], "d": [], "c": []}}
    with pytest.raises(ImprintError, match="dataset 't' has no rows; write a dataset of questions and answers"):
        gates_method.fit(fitting.job("head_gates", [base], tmp_path, data="t", **empty))
    with pytest.raises(ImprintError, match="dataset 'd' has no rows; write a dataset of prompts"):
        direction_method.fit(fitting.job("direction", [base], tmp_path, layer=0, **SETS, **empty))


def test_fewer_rows_than_shots_are_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="few_shot: 40 examples are asked for, and there are 8 other rows"):
        fit_gates(base, tmp_path, shots=40)


def test_activations_that_are_not_finite_are_refused(base: Path, tmp_path: Path) -> None:
    made = engine(base)
    text = [made.render([{"role": "user", "content": "x"}])]
    with torch.no_grad():
        layers.output_projections(made.model, "t")[1].weight[0] = float("nan")
    with pytest.raises(ImprintError, match="the model's activations are not finite"):
        record(made, text, "last_prompt", "residual")
    assert record(made, text, "last_prompt", "heads").isfinite().all(), "the heads come before the broken weight"
    broken = pico_arms.full(
        base, tmp_path / "broken", change=lambda name, tensor: tensor * float("nan") if "o_proj" in name else tensor
    )
    job = fitting.job("direction", broken, tmp_path / "fit", datasets={"d": ROWS}, layer=0, **SETS)
    with pytest.raises(ImprintError, match="the model's activations are not finite"):
        direction_method.fit(job)
    assert not (tmp_path / "fit" / "weights").exists()
