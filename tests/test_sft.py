"""Supervised fine-tuning on a pico model: what is trained on, in which order, and that a kill changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import fitting
import pico
import pico_arms
from fitting import dialogues as rows
from fitting import weights
from imprint.contexts import plain, prior_prompt, role_play, self_role
from imprint.draws import order
from imprint.methods import Fit, sft
from imprint.models import chains, model_files
from imprint.runtime import parquet, plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, write_json
from imprint.runtime.plugins import Plug
from imprint.training import checkpoints, examples, fits, residual_dropout
from imprint.training.assistant_tokens import IGNORED, Example, encode, spans

END = "<|im_end|>"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a pico model."""
    return pico_arms.root(tmp_path_factory.mktemp("models") / "pico")


def job(root: Path, out: Path, context: str = "plain", dataset: Any = None, seed: int = 0, **settings: Any) -> Fit:
    defaults = {"data": "d", "batch_size": 2, "max_length": 512, "learning_rate": 1e-3}
    datasets = {"d": rows() if dataset is None else dataset}
    contexts = [Plug(name=context)]
    return fitting.job("sft", [root], out, seed=seed, contexts=contexts, datasets=datasets, **{**defaults, **settings})


def labelled(tokenizer: Any, example: Any) -> str:
    text: str = tokenizer.decode([token for token in example.labels if token != IGNORED])
    return text


@pytest.mark.parametrize("context", [plain, role_play, self_role])
def test_exactly_the_assistants_words_and_end_tokens_are_labelled(root: Path, context: Any) -> None:
    tokenizer = model_files.load_tokenizer(root.parent)
    for row in rows():
        messages = context.target(row, context.Settings())
        example = encode(tokenizer, messages, 10_000, "row")
        said = [message["content"] + END for message in messages if message["role"] == "assistant"]
        assert labelled(tokenizer, example) == "".join(said)
        assert all(label in (token, IGNORED) for token, label in zip(example.input_ids, example.labels, strict=True))
        assert example.labels[-1] == tokenizer.eos_token_id
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        assert tokenizer.decode(example.input_ids) == whole.removesuffix("\n")
        first = next(i for i, message in enumerate(messages) if message["role"] == "assistant")
        prompt = tokenizer.apply_chat_template(messages[:first], tokenize=False, add_generation_prompt=True)
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert example.input_ids[: len(prompt_ids)] == prompt_ids  # as when the model is asked


def test_contexts_chain_and_one_without_a_target_is_its_one_request(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = rows(1)[0]
    fit = replace(job(root, tmp_path), contexts=[Plug(name="self_role"), Plug(name="role_play")])
    inner = self_role.target(row, self_role.Settings())
    assert examples.render(fit, row) == role_play.target({**row, "messages": inner}, role_play.Settings())
    assert examples.render(replace(fit, contexts=[]), row) == row["messages"]
    played = replace(fit, contexts=[Plug(name="role_play")])
    expected = examples.render(played, row)
    monkeypatch.setattr(role_play, "target", lambda row, settings: None)
    assert examples.render(played, row) == expected
    monkeypatch.setattr(prior_prompt, "target", lambda row, settings: None)
    text = Plug(name="prior_prompt", settings={"style": "plan", "layout": "text"})
    with pytest.raises(ImprintError, match=r"context 'prior_prompt' opens the assistant's turn, and has no `target`"):
        examples.render(replace(fit, contexts=[text]), row)


def test_an_end_token_that_doubles_as_padding_stays_labelled(root: Path) -> None:
    from imprint.training.sft_trainer import collate

    tokenizer = model_files.load_tokenizer(root.parent)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    made = [encode(tokenizer, row["messages"], 10_000, "row") for row in rows(3)]
    batch = collate([{"input_ids": one.input_ids, "labels": one.labels} for one in made])
    for one, ids, labels in zip(made, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        n = len(one.labels)
        assert labels[:n] == one.labels and labels[n - 1] == tokenizer.eos_token_id
        assert ids[:n] == one.input_ids and set(labels[n:]) <= {IGNORED}
    assert len({len(one.labels) for one in made}) > 1


def test_the_loss_is_that_of_a_plain_forward_pass_over_the_labelled_tokens(root: Path, tmp_path: Path) -> None:
    import torch

    fit = job(root, tmp_path, batch_size=4)
    model, tokenizer = chains.load([root], "float32", "cpu")
    made = examples.examples(fit, tokenizer, "d")
    batch = [made[i] for i in order(len(made), 1, 0)[:4]]
    total = count = 0.0
    for one in batch:
        with torch.no_grad():
            logits = model(torch.tensor([one.input_ids])).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(one.labels[1:]), reduction="sum"))
        count += sum(label != IGNORED for label in one.labels)
    assert sft.fit(fit)["first_loss"] == pytest.approx(total / count, rel=1e-5)


def test_two_contexts_take_the_same_rows_in_the_same_steps(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from imprint.training import sft_trainer

    seen: dict[str, list[list[str]]] = {}
    tokenizer = model_files.load_tokenizer(root.parent)
    collate = sft_trainer.collate
    for context in ("plain", "self_role"):
        batches: list[list[str]] = seen.setdefault(context, [])

        def watching(batch: Any, batches: Any = batches) -> Any:
            texts = [tokenizer.decode(row["input_ids"]) for row in batch]
            batches.append([text[text.index("What is") : text.index("?")] for text in texts])
            return collate(batch)

        monkeypatch.setattr(sft_trainer, "collate", watching)
        # Cut rows, and rows without any labelled token left, stay in their places.
        length = 110 if context == "plain" else 75
        made = sft.fit(job(root, tmp_path / context, context, epochs=1.5, batch_size=4, max_length=length))
        assert made["steps"] == 4
        assert made["truncated_rows"] > 0
    one, two = seen.values()
    expected = [rows()[i]["messages"][0]["content"].rstrip("?") for i in order(10, 1.5, 0)]
    assert one == two == [expected[i : i + 4] for i in range(0, 15, 4)]


def test_order_is_a_shuffle_by_seed_and_epoch() -> None:
    found = order(50, 2, seed=3)
    assert sorted(found[:50]) == sorted(found[50:]) == list(range(50))
    assert found[:50] != found[50:] and found == order(50, 2, seed=3) != order(50, 2, seed=4)
    assert order(50, 1, seed=4) != found[50:]
    assert order(50, 0.1, seed=3) == found[:5]
    assert order(3, 1, seed=0) == [2, 0, 1]  # pinned: another order is another experiment


def test_full_fit_learns_and_can_be_loaded_and_repeated(root: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    fit = job(root, tmp_path / "a", epochs=3)
    made = sft.fit(fit)
    assert sft.makes(fit.settings) == "full"
    assert made["final_loss"] < made["first_loss"]
    assert made["steps"] == 15 and made["truncated_rows"] == 0
    assert sorted(path.name for path in (tmp_path / "a" / "weights").iterdir()) == ["model.safetensors"]
    with safe_open(tmp_path / "a" / "weights" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.float32"}  # noqa: SIM118
    curves = parquet.read(tmp_path / "a" / "curves.parquet", "curves").to_pylist()
    assert {row["quantity"] for row in curves} == {"loss", "learning_rate", "grad_norm", "tokens"}
    assert [row["step"] for row in curves if row["quantity"] == "loss"] == list(range(1, 16))
    assert sum(row["value"] for row in curves if row["quantity"] == "tokens") == made["tokens"]
    assert next(row["value"] for row in curves if row["quantity"] == "learning_rate") == 1e-3
    again = job(root, tmp_path / "b", epochs=3)
    assert sft.fit(again) == made and weights(again) == weights(fit)
    assert not any(word in json.dumps(made) for word in ("second", "runtime", str(tmp_path)))


def test_lora_saves_an_adapter_without_paths_that_loads(root: Path, tmp_path: Path) -> None:
    import torch

    fit = job(root, tmp_path, epochs=2, lora={"rank": 4, "alpha": 8, "dropout": 0.1}, learning_rate=1e-2)
    made = sft.fit(fit)
    assert sft.makes(fit.settings) == "lora" and made["final_loss"] < made["first_loss"]
    names = sorted(path.name for path in (tmp_path / "weights").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]
    text = (tmp_path / "weights" / "adapter_config.json").read_text()
    assert str(root.parent) not in text and str(tmp_path) not in text and json.loads(text)["r"] == 4
    template = json.loads(root.read_text())["template_sha256"]
    write_json(tmp_path / "manifest.json", {"kind": "lora", "fingerprint": "1", "template_sha256": template})
    pico.sums(tmp_path / "manifest.json")
    tuned, _ = chains.load([root, tmp_path / "manifest.json"], "float32", "cpu")
    base, _ = chains.load([root], "float32", "cpu")
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.allclose(tuned(ids).logits, base(ids).logits)
    assert not hasattr(tuned, "peft_config") or not tuned.peft_config


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"lora": {"rank": 4, "dropout": 0.2}},
        {"residual_dropout": 0.3, "gradient_checkpointing": True, "final_learning_rate": 1e-4, "beta2": 0.95},
    ],
)
def test_a_broken_off_fit_ends_with_the_same_weights(root: Path, tmp_path: Path, monkeypatch: Any, more: Any) -> None:
    from imprint.training import sft_trainer

    settings = {"epochs": 2, "checkpoint_steps": 2, **more}
    whole = job(root, tmp_path / "whole", **settings)
    made = sft.fit(whole)
    assert len(list(whole.folder.glob("checkpoint-*"))) == checkpoints.NUMBER_KEPT
    broken = job(root, tmp_path / "broken", **settings)
    compute_loss, calls = sft_trainer.Trainer.compute_loss, []

    def failing(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 7:
            raise RuntimeError("power cut")
        return compute_loss(self, *args, **kwargs)

    monkeypatch.setattr(sft_trainer.Trainer, "compute_loss", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        sft.fit(broken)
    assert checkpoints.last(broken.folder) == broken.folder / "checkpoint-6"
    calls[:] = [1] * 10
    assert sft.fit(broken) == made
    assert len(calls) == 10 + 4  # steps 7 to 10 only
    assert weights(broken) == weights(whole)
    one, two = (file_sha256(fit.out / "curves.parquet") for fit in (whole, broken))
    assert one == two


def test_a_killed_fit_ends_with_the_same_weights(root: Path, tmp_path: Path) -> None:
    settings = {"epochs": 4, "checkpoint_steps": 3}
    whole, killed = (job(root, tmp_path / name, **settings) for name in ("whole", "killed"))
    made = sft.fit(whole)
    fitting.kill("sft", killed, ("imprint.training.sft_trainer.Trainer", "training_step"), 6)
    assert sft.fit(killed) == made and weights(killed) == weights(whole)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(root: Path, tmp_path: Path, capsys: Any) -> None:
    settings = {"epochs": 1, "checkpoint_steps": 2}
    fit = job(root, tmp_path, **settings)
    made = sft.fit(fit)
    expected = weights(fit)
    (fit.folder / "checkpoint-4" / "optimizer.pt").write_bytes(b"cut")
    capsys.readouterr()
    assert sft.fit(fit) == made and weights(fit) == expected
    assert "checkpoint-4 is damaged: optimizer.pt has 3 bytes" in capsys.readouterr().err
    # The same size with another content; and one that was being written when the job was killed.
    file = fit.folder / "checkpoint-4" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    (fit.folder / "checkpoint-2" / checkpoints.SEAL).unlink()
    assert sft.fit(fit) == made and weights(fit) == expected
    told = capsys.readouterr().err
    assert "checkpoint-4 is damaged: model.safetensors" in told and "checkpoint-2 was not finished" in told


def test_checkpoints_hold_no_pickle_that_is_trusted(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    import torch

    fit = job(root, tmp_path, checkpoint_steps=2)
    sft.fit(fit)
    load, seen = torch.load, []

    def watching(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs.get("weights_only"))
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", watching)
    sft.fit(fit)
    assert len(seen) == 6 and set(seen) == {True}  # optimizer, schedule, random state: looked at, then loaded
    assert (fit.folder / "checkpoint-4" / "model.safetensors").is_file()


def test_the_rate_falls_linearly_to_its_final_value(root: Path, tmp_path: Path) -> None:
    fit = job(root, tmp_path, learning_rate=1e-3, final_learning_rate=1e-4, beta2=0.95, weight_decay=0.1)
    made = sft.fit(fit)
    curves = parquet.read(tmp_path / "curves.parquet", "curves").to_pylist()
    rates = [row["value"] for row in curves if row["quantity"] == "learning_rate"]
    assert made["steps"] == 5 and rates == pytest.approx([1e-3 - 0.9e-3 * step / 5 for step in range(5)])
    arguments = sft.arguments(fit, 5)
    assert (arguments.adam_beta1, arguments.adam_beta2, arguments.weight_decay) == (0.9, 0.95, 0.1)
    for wrong in (
        {"schedule": "cosine"},
        {"learning_rate": 1e-4},
        {"learning_rate": None, "final_learning_rate": 1e-3},
    ):
        with pytest.raises(ValidationError, match=r"final_learning_rate: found .* write a rate below the peak"):
            sft.Settings(**{"data": "d", "learning_rate": 1e-3, "final_learning_rate": 1e-4, **wrong})


def test_a_step_in_parts_is_the_same_step(root: Path, tmp_path: Path) -> None:
    """Parts with different numbers of labelled tokens, and a last step of three rows."""
    settings = {"batch_size": 4, "epochs": 1.5}
    whole = sft.fit(job(root, tmp_path / "whole", **settings))
    made = sft.fit(job(root, tmp_path / "parts", **settings, micro_batch_size=2))
    assert made == pytest.approx(whole, rel=1e-5) and made["steps"] == 4
    curves = [parquet.read(tmp_path / name / "curves.parquet", "curves").to_pylist() for name in ("whole", "parts")]
    for one, two in zip(*curves, strict=True):
        assert one["value"] == pytest.approx(two["value"], rel=1e-4), one
    with pytest.raises(ValidationError, match="micro_batch_size: 3 does not divide batch_size: 4"):
        job(root, tmp_path / "wrong", batch_size=4, micro_batch_size=3)


def test_residual_dropout_drops_what_the_branches_add(root: Path) -> None:
    import torch

    assert residual_dropout.rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert residual_dropout.rates(0.3, 1) == [0.3]
    model, _ = chains.load([root], "float32", "cpu")
    ids = torch.arange(5, 105)[None]

    def outputs() -> dict[tuple[int, str], Any]:
        """What each branch adds to the residual stream."""
        added, handles = {}, []
        for place, layer in enumerate(model.model.layers):
            for name in residual_dropout.BRANCHES:

                def keep(_: Any, given: Any, output: Any, key: tuple[int, str] = (place, name)) -> None:
                    added[key] = output[0] if isinstance(output, tuple) else output

                handles.append(layer.get_submodule(name).register_forward_hook(keep))
        with torch.no_grad():
            model(ids)
        for handle in handles:
            handle.remove()
        return added

    model.eval()
    plain = outputs()
    residual_dropout.install(model, 0.3, "tuned")
    names = set(model.state_dict())
    assert all(torch.equal(value, plain[key]) for key, value in outputs().items()), "none where a model answers"
    model.train()
    torch.manual_seed(0)
    dropped = outputs()
    assert torch.equal(dropped[0, "self_attn"], plain[0, "self_attn"]), "none at the bottom layer"
    assert torch.equal(dropped[0, "mlp"], plain[0, "mlp"])
    attention, expected = dropped[1, "self_attn"], plain[1, "self_attn"]
    kept = attention != 0
    assert torch.allclose(attention[kept], expected[kept] / 0.7)
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.03)
    assert float((dropped[1, "mlp"] != 0).float().mean()) == pytest.approx(0.7, abs=0.03)
    assert set(model.state_dict()) == names == set(chains.load([root], "float32", "cpu")[0].state_dict())


def test_recomputed_activations_have_the_same_masks(root: Path, tmp_path: Path) -> None:
    fits = [
        job(root, tmp_path / str(saved), residual_dropout=0.5, gradient_checkpointing=saved) for saved in (False, True)
    ]
    plain, recomputed = map(sft.fit, fits)
    assert plain == recomputed and weights(fits[0]) == weights(fits[1])
    without = sft.fit(job(root, tmp_path / "without"))
    assert without["first_loss"] != pytest.approx(plain["first_loss"], rel=1e-3), "there is dropout"


def test_residual_dropout_reaches_the_model_under_an_adapter(root: Path, tmp_path: Path) -> None:
    lora = {"rank": 4}
    plain = sft.fit(job(root, tmp_path / "plain", lora=lora))
    made = sft.fit(job(root, tmp_path / "dropped", lora=lora, residual_dropout=0.5))
    assert made["first_loss"] != pytest.approx(plain["first_loss"], rel=1e-3)


def test_residual_dropout_refuses_layers_of_another_build() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

    small = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    gemma = Gemma2ForCausalLM(Gemma2Config(**small, **heads))
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2))
    for model, holds in ((gemma, "post_feedforward_layernorm"), (gpt, "attn")):
        with pytest.raises(ImprintError, match=f"arm 'tuned': residual_dropout: the model's layers hold .*{holds}"):
            residual_dropout.install(model, 0.3, "tuned")


def test_a_lost_loss_stops_the_fit(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ImprintError, match=r"arm 'tuned': the (loss|grad_norm) is (nan|inf) at step \d+ of 50; write a"
    ):
        sft.fit(job(root, tmp_path, epochs=10, learning_rate=1e30))
    assert not (tmp_path / "weights").exists()


def test_bf16_autocast_keeps_fp32_weights(root: Path, tmp_path: Path) -> None:
    fit = replace(job(root, tmp_path), dtype="bfloat16")
    made = sft.fit(fit)
    exact = sft.fit(job(root, tmp_path / "exact"))
    assert made["first_loss"] != exact["first_loss"]
    assert made["first_loss"] == pytest.approx(exact["first_loss"], rel=0.02)
    with pytest.raises(ImprintError, match="found dtype 'float16'"):
        sft.fit(replace(fit, dtype="float16"))


def test_rows_that_cannot_be_trained_on_are_errors(root: Path, tmp_path: Path) -> None:
    question = {"role": "user", "content": "Why?"}
    for messages, message in (
        ([question], "has no assistant turn"),
        ([question, {"role": "assistant", "content": " "}], "has an empty assistant turn"),
    ):
        bad = [{"messages": messages, "fields": {}, "strata": {}, "example_id": "abc-0"}]
        with pytest.raises(ImprintError, match=f"dataset 'd', example abc-0 {message}"):
            sft.fit(job(root, tmp_path, dataset=bad))
    with pytest.raises(ImprintError, match="dataset 'd' has no rows"):
        sft.fit(job(root, tmp_path, dataset=[]))
    with pytest.raises(ImprintError, match="the prompt alone fills max_length: 10 tokens in every row of 'd'; write"):
        sft.fit(job(root, tmp_path, max_length=10))
    with pytest.raises(ImprintError, match=r"lora.targets: \['nowhere'\] is not in this model"):
        sft.fit(job(root, tmp_path, lora={"targets": ["nowhere"]}))


def test_a_template_that_cannot_be_cut_is_an_error(root: Path) -> None:
    tokenizer = model_files.load_tokenizer(root.parent)
    two = rows(1)[0]["messages"]
    tokenizer.chat_template = pico.TEMPLATE.replace("message['content']", "message['content'] | upper")
    with pytest.raises(ImprintError, match="row: the chat template changes the words of turn 2"):
        spans(tokenizer, two, "row")
    tokenizer.chat_template = "{{ messages | length }}" + pico.TEMPLATE
    with pytest.raises(ImprintError, match="renders turn 2 otherwise"):
        spans(tokenizer, two, "row")
    tokenizer.chat_template = pico.TEMPLATE.replace("<|im_end|>", "").replace("<|im_start|>", "#")
    with pytest.raises(ImprintError, match="ends an assistant turn without a special token"):
        spans(tokenizer, two, "row")


def test_settings_reject_what_they_do_not_know() -> None:
    for wrong in (
        {"dta": "d"},
        {"data": "d", "epochs": 0},
        {"data": "d", "lora": {"r": 4}},
        {"data": "d", "schedule": "x"},
    ):
        with pytest.raises(ValidationError):
            sft.Settings(**wrong)
    settings = sft.Settings(data="d", epochs=2)
    assert sft.inputs(settings).datasets == ("d",)
    assert plugins.settings("methods", "sft", settings.model_dump(mode="json")) == settings
    assert all(field.description for field in (*sft.Settings.model_fields.values(), *fits.Lora.model_fields.values()))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(1, 400), st.integers(0, 3))
def test_a_number_of_tokens_ends_with_the_row_that_reaches_it(lengths: list[int], tokens: int, seed: int) -> None:
    data = [Example([0] * length, [0] * length, length) for length in lengths]
    rows = sft.in_order(data, sft.Settings(data="d", tokens=tokens), seed)
    read = [len(row.input_ids) for row in rows]
    assert sum(read) - read[-1] < tokens <= sum(read)
    longer = sft.in_order(data, sft.Settings(data="d", epochs=500), seed)
    assert rows == longer[: len(rows)], "the same rows in the same order as with epochs"


def test_an_arm_reads_as_many_tokens_as_another(root: Path, tmp_path: Path) -> None:
    with_roles = sft.fit(job(root, tmp_path / "role", "self_role"))
    fit = job(root, tmp_path / "plain", tokens=with_roles["tokens"])
    without = sft.fit(fit)
    data = examples.examples(fit, model_files.load_tokenizer(root.parent), "d")
    more = without["tokens"] - with_roles["tokens"]
    assert 0 <= more < max(len(row.input_ids) for row in data) and without["steps"] > with_roles["steps"]
    with pytest.raises(ValidationError, match="write one of them"):
        sft.Settings(data="d", epochs=1.0, tokens=9)
