"""Weights that others have made, as the fit of an arm: what they come to in memory, what is refused, and how often such
a fit counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import fitting
import pico
import pico_arms
import workflow
from conftest import make_project, one_fit
from imprint.composition.vectors import Pool
from imprint.config import loading
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.dag.jobs.fits import Fitted
from imprint.dag.jobs.results import OfAnalysis
from imprint.dag.report_facts import facts_of
from imprint.methods import given
from imprint.models import chains
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_json, read_manifest, write_json


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root model, an adapter that PEFT has written, and a fine-tuned model that transformers has written."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("made")
    root = pico_arms.root(folder / "root")
    model, tokenizer = chains.load([root], "float32", "cpu")
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    get_peft_model(model, config).save_pretrained(folder / "adapter")
    model, _ = chains.load([root], "float32", "cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    model.to(torch.bfloat16).save_pretrained(folder / "model", max_shard_size="20KB")
    tokenizer.save_pretrained(folder / "model")
    assert len(list((folder / "model").glob("*.safetensors"))) > 1, "shards"
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "made"))


def fit(folder: Path, name: str, below: list[Path] | None = None) -> tuple[list[Path], dict[str, Any]]:
    """The chain of an arm that is given a folder, and the metrics of its fit."""
    chain = below or [folder / "root" / "manifest.json"]
    out = folder / "arms" / name
    metrics = given.fit(fitting.job("given", chain, out, path=str(folder / name)))
    kind = given.makes(given.Settings(path=str(folder / name)))
    template = read_manifest(chain[0])["template_sha256"]
    write_json(out / "manifest.json", {"kind": kind, "fingerprint": name, "template_sha256": template})
    return [*chain, pico.sums(out / "manifest.json")], metrics


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(torch.arange(3, 40)[None]).logits)


def refused(folder: Path, name: str, said: str) -> None:
    with pytest.raises(ImprintError, match=said):
        fit(folder, name)


def test_an_adapter_answers_as_peft_lets_it(folder: Path) -> None:
    from peft import PeftModel

    chain, metrics = fit(folder, "adapter")
    base, _ = chains.load(chain[:1], "float32", "cpu")
    expected = logits(PeftModel.from_pretrained(base, folder / "adapter"))
    assert torch.allclose(logits(chains.load(chain, "float32", "cpu")[0]), expected, atol=1e-5)
    weights = chains.load(chain, "float32", "cpu")[0].parameters()
    assert all(tensor.requires_grad for tensor in weights), "a fit of all weights may follow"
    assert (metrics["rank"], metrics["alpha"], metrics["tokens"]) == (4, 6, 0)


def test_a_model_in_shards_answers_as_transformers_lets_it(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    chain, metrics = fit(folder, "model")
    expected = logits(AutoModelForCausalLM.from_pretrained(folder / "model", dtype="float32"))
    assert torch.equal(logits(chains.load(chain, "float32", "cpu")[0]), expected)
    assert 0 < metrics["distance"] < 0.5


def test_weights_are_linked_and_an_overwritten_file_is_noticed(folder: Path) -> None:
    chain, _ = fit(folder, "adapter")
    source, link = folder / "adapter/adapter_model.safetensors", chain[1].parent / "weights/adapter_model.safetensors"
    assert source.samefile(link)
    source.write_bytes(source.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ImprintError, match="is not the file that was written"):
        chains.load(chain, "float32", "cpu")


def test_vectors_of_an_adapter_and_a_model(folder: Path) -> None:
    (root, adapter), _ = fit(folder, "adapter")
    (_, model), _ = fit(folder, "model")
    pool = Pool([root], {"adapter": [root, adapter], "model": [root, model]})
    one, other = pool.vectors
    block = "model.layers.0.self_attn.q_proj.weight"
    of_root = load_file(root.parent / "model.safetensors")[block]
    for vector, chain in ((one, [root, adapter]), (other, [root, model])):
        weights = dict(chains.load(chain, "float32", "cpu")[0].named_parameters())
        assert torch.allclose(vector.delta(block), weights[block] - of_root, atol=1e-6)


def test_given_weights_compose_with_each_other(folder: Path) -> None:
    (root, adapter), _ = fit(folder, "adapter")
    (_, model), _ = fit(folder, "model")
    arms = {"adapter": [root, adapter], "model": [root, model]}
    for method, more in (("task_arithmetic", {"scale": 0.5}), ("ties", {})):
        job = fitting.job(method, [root], folder / "arms" / method, arms=arms, vectors=[*arms], **more)
        plugins.load("methods", method).fit(job)
        assert (job.out / "weights/model.safetensors").is_file()
    block = "model.layers.0.self_attn.q_proj.weight"
    pool = Pool([root], arms)
    composed = load_file(folder / "arms/task_arithmetic/weights/model.safetensors")[block]
    expected = load_file(root.parent / "model.safetensors")[block] + 0.5 * sum(v.delta(block) for v in pool.vectors)
    assert torch.allclose(composed, expected, atol=1e-6)


def test_an_adapter_of_a_fine_tuned_model_lies_on_that_model(folder: Path) -> None:
    below, _ = fit(folder, "model")
    chain, _ = fit(folder, "adapter", below)
    two, one = (chains.load(part, "float32", "cpu")[0].state_dict() for part in (chain, below))
    block = "model.layers.1.mlp.down_proj.weight"
    assert not torch.equal(two[block], one[block])
    assert torch.equal(two["model.norm.weight"], one["model.norm.weight"])


def experiment(folder: Path, temperature: float = 0.0) -> Experiment:
    """An experiment of three seeds with given arms, and arms that are made from them."""
    raw = one_fit() | {"seeds": [3, 4, 5]}
    raw["evals"]["written"] = {"dataset": "general", "score": "word", "temperature": temperature}
    raw["arms"] |= {
        "taken": {"parent": "base", "fit": {"method": "given", "path": str(folder / "adapter")}},
        "other": {"parent": "base", "fit": {"method": "given", "path": str(folder / "model")}},
        "asked": {"parent": "taken", "apply": {"context": "role_play"}},
        "tuned_on": {"parent": "taken", "fit": {"method": "sft", "data": "dialogues"}},
        "merged": {"parent": "base", "fit": {"method": "ties", "vectors": ["taken", "other"]}},
        "mixed": {"parent": "base", "fit": {"method": "ties", "vectors": ["taken", "tuned"]}},
        "drawn": {"parent": "base", "fit": {"method": "dare", "vectors": ["taken", "other"]}},
    }
    raw["analyses"] = {
        "fixed": {"vector_similarity": ["taken", "other"]},
        "seeded": {"vector_similarity": ["taken", "tuned"]},
    }
    return Experiment(loading.parse(raw))


def test_given_weights_are_fitted_once_and_count_as_one_run(folder: Path) -> None:
    of = experiment(folder)
    fits = {name: [seed for arm, seed in of.fits if arm == name] for name in of.config.arms}
    once, each = [0], [3, 4, 5]
    assert fits == {
        **{"base": [], "asked": [], "taken": once, "other": once, "merged": once},
        **{"tuned": each, "tuned_on": each, "mixed": each, "drawn": each},
    }
    assert of.chain("tuned_on", 4)[1:] == [
        "results/arms/taken/seed0/manifest.json",
        "results/arms/tuned_on/seed4/manifest.json",
    ]
    assert {run.seed for run in of.runs if run.arm == "taken"} == {0}
    stages = all_jobs(of)
    spec = stages["summarize"].spec(())
    assert set(spec.fitted) == {"tuned", "tuned_on", "mixed", "drawn"}
    assert set(spec.single) == {"taken", "other", "asked", "merged"}
    analyses = {
        name: [seed for seed, _ in stages["analyze"].spec(OfAnalysis(name)).inputs] for name in of.config.analyses
    }
    assert analyses == {"fixed": [3], "seeded": each}
    assert [fit.seed for arm in facts_of(of).arms for fit in arm.fits if arm.name == "taken"] == [0]


def test_sampled_answers_of_given_weights_have_seeds_and_are_still_one_run(folder: Path) -> None:
    of = experiment(folder, temperature=1.0)
    assert {run.seed for run in of.runs if (run.arm, run.eval) == ("taken", "written")} == {3, 4, 5}
    assert "taken" in all_jobs(of)["summarize"].spec(()).single


def test_the_files_of_given_weights_are_inputs_of_their_fit(folder: Path) -> None:
    (folder / "adapter/optimizer.pt").write_bytes(b"pickle")
    inputs = all_jobs(experiment(folder))["train"].inputs(Fitted("taken", 0))
    assert [Path(name).name for name in inputs["weights"]] == ["adapter_config.json", "adapter_model.safetensors"]


def test_the_report_names_the_folder(folder: Path) -> None:
    what = {arm.name: arm.what for arm in facts_of(experiment(folder)).arms}
    assert what["taken"] == "base, made by given from adapter"


def config(folder: Path, **values: Any) -> None:
    file = folder / "adapter/adapter_config.json"
    file.write_text(json.dumps(read_json(file) | values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"use_dora": True}, "no plain LoRA adapter .* use_dora: True"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save: \['lm_head'\]"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern"),
        ({"bias": "all"}, "bias: 'all'"),
        ({"of_next_year": {"a": 1}}, "of_next_year"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"init_lora_weights": "pissa"}, "'pissa'.*changes the base too"),
        ({"r": 8}, "has rank 4, but adapter_config.json says 8"),
        ({"r": "4"}, "both must be numbers"),
        ({"lora_alpha": float("nan")}, "both must be numbers"),
    ],
)
def test_adapters_that_are_more_than_plain_lora(folder: Path, values: dict[str, Any], said: str) -> None:
    config(folder, **values)
    refused(folder, "adapter", said)


def test_the_names_of_an_adapters_config_are_not_used(folder: Path) -> None:
    expected = logits(chains.load(fit(folder, "adapter")[0], "float32", "cpu")[0])
    config(folder, target_modules="(a|aa)+$", auto_mapping={"parent_library": "antigravity"})
    assert torch.equal(logits(chains.load(fit(folder, "adapter")[0], "float32", "cpu")[0]), expected)


def test_an_adapter_of_another_model_names_its_own(folder: Path) -> None:
    config(folder, base_model_name_or_path="someone/another-7b")
    change(folder / "adapter/adapter_model.safetensors", FACTOR, torch.ones(4, 16))
    refused(folder, "adapter", r"base 'someone/another-7b'.*trained on another model; write that one as the root")


def change(file: Path, key: str, tensor: torch.Tensor | None) -> None:
    """Put a tensor into a safetensors file; None takes it out."""
    tensors = load_file(file)
    tensors.pop(key, None)
    save_file(tensors | ({} if tensor is None else {key: tensor}), file, {"format": "pt"})


FACTOR = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("key", "tensor", "said"),
    [
        (FACTOR, torch.full((4, 32), float("nan")), "NaN or Inf in block 'model.layers.0.self_attn.q_proj.weight'"),
        (FACTOR, torch.ones(4, 16), r"is \[32, 32\] in the root model, but \[32, 16\]"),
        (FACTOR.replace("layers.0", "layers.7"), torch.ones(4, 32), "changes a block 'model.layers.7.* lacks"),
        (FACTOR.replace("lora_A.weight", "lora_magnitude_vector"), torch.ones(32), "no LoRA factor"),
    ],
)
def test_adapters_that_do_not_fit_the_base(folder: Path, key: str, tensor: torch.Tensor, said: str) -> None:
    change(folder / "adapter/adapter_model.safetensors", key, tensor)
    refused(folder, "adapter", said)


def test_an_adapter_of_a_tied_output_layer(folder: Path) -> None:
    file = folder / "adapter/adapter_model.safetensors"
    rows = len(load_file(folder / "root/model.safetensors")["model.embed_tokens.weight"])
    change(file, "base_model.model.lm_head.lora_A.weight", torch.ones(4, 32))
    change(file, "base_model.model.lm_head.lora_B.weight", torch.ones(rows, 4))
    refused(folder, "adapter", "changes the output layer, which is the embedding too")


def test_an_adapter_that_is_a_pickle(folder: Path) -> None:
    (folder / "adapter/adapter_model.safetensors").rename(folder / "adapter/adapter_model.bin")
    refused(folder, "adapter", r"but no adapter_model\.safetensors")


def whole(folder: Path, **tensors: torch.Tensor | None) -> Path:
    """The fine-tuned model in one file, with tensors changed."""
    name = "model.safetensors"
    for shard in sorted((folder / "model").glob("model-*")):
        kept = load_file(folder / "model" / name) if (folder / "model" / name).exists() else {}
        save_file(kept | load_file(shard), folder / "model" / name, {"format": "pt"})
        shard.unlink()
    (folder / "model/model.safetensors.index.json").unlink()
    for key, tensor in tensors.items():
        change(folder / "model" / name, key, tensor)
    return folder / "model"


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({NORM: torch.full((32,), float("inf"))}, "NaN or Inf in block 'model.norm.weight'"),
        ({NORM: torch.ones(31)}, r"block 'model.norm.weight' is \[31\]"),
        ({NORM: torch.ones(32, dtype=torch.int8)}, "has int8 numbers, so it is quantized"),
        ({NORM: None}, "has no block 'model.norm.weight'"),
        ({"model.more": torch.ones(1)}, r"1 tensors that the root model lacks \(model\.more\)"),
        ({"model.embed_tokens.weight": torch.ones(400, 32)}, "vocabulary was resized in training"),
    ],
)
def test_models_that_do_not_fit_the_base(folder: Path, tensors: dict[str, Any], said: str) -> None:
    whole(folder, **tensors)
    refused(folder, "model", said)


def test_a_whole_model_in_one_file(folder: Path) -> None:
    expected = logits(chains.load(fit(folder, "model")[0], "float32", "cpu")[0])
    whole(folder)
    assert torch.equal(logits(chains.load(fit(folder, "model")[0], "float32", "cpu")[0]), expected)


def test_a_model_of_another_base(folder: Path) -> None:
    pico.make(folder / "model", seed=7)
    for file in folder.glob("model/model*"):
        if file.name != "model.safetensors":
            file.unlink()
    refused(folder, "model", r"is no fine-tune of .*: its distance from it is 1\.\d\d")


def test_a_model_whose_config_computes_something_else(folder: Path) -> None:
    file = folder / "model/config.json"
    plain = read_json(file)
    write_json(file, plain | {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4})
    refused(folder, "model", "has num_attention_heads 8, but its root model 4")
    write_json(file, plain | {"num_hidden_layers": 10**12})
    refused(folder, "model", "has num_hidden_layers 1000000000000, but its root model 2")
    file.write_text("[" * 100_000)
    refused(folder, "model", "config.json holds no JSON object")


@pytest.mark.parametrize("name", ["adapter", "model"])
def test_other_words_than_the_base(folder: Path, name: str) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(folder / "root" / file, folder / name)
    fit(folder, name)
    tokenizer = read_json(folder / name / "tokenizer.json")
    token = tokenizer["added_tokens"][0]
    more = {**tokenizer, "added_tokens": [*tokenizer["added_tokens"], token | {"id": 999, "content": "<pad>"}]}
    write_json(folder / name / "tokenizer.json", more)
    refused(folder, name, r"another tokenizer than its root model .*: 1 tokens more \('<pad>'\)")
    swapped = {**tokenizer["model"]["vocab"], "a": tokenizer["model"]["vocab"]["b"]}
    write_json(folder / name / "tokenizer.json", {**tokenizer, "model": tokenizer["model"] | {"vocab": swapped}})
    refused(folder, name, r"1 tokens under other ids \('a'\)")
    write_json(folder / name / "tokenizer.json", {"model": {"vocab": 3}})
    refused(folder, name, "is no tokenizer that can be read")
    write_json(folder / name / "tokenizer.json", tokenizer)
    (folder / name / "chat_template.jinja").write_text("{{ messages }}")
    refused(folder, name, "another chat template than its root model, .* write `chat_template: FILE`")


def test_a_folder_that_is_not_there_is_named(folder: Path) -> None:
    shutil.move(folder / "adapter", folder / "moved")
    with pytest.raises(ImprintError, match=r"arms\.taken\.fit: '.*/adapter' is no folder; .* a link at its old place"):
        experiment(folder)


@pytest.mark.workflow
@pytest.mark.slow
def test_from_a_folder_to_the_report(folder: Path, tmp_path: Path) -> None:
    """A given adapter beside its base, as a vector beside a trained arm's, and as a parent; what a moved and a changed
    folder reruns."""
    project, adapter = make_project(tmp_path / "project"), tmp_path / "their adapter"
    workflow.shorten(project, rows=4)
    pico.make(project / "resources/local/pico")
    shutil.move(folder / "adapter", adapter)
    fit = {"method": "sft", "data": "dialogues", "max_length": 512, "batch_size": 4}
    config = {
        "results": "results",
        "engine": {"dtype": "float32"},
        "models": {"pico": {"path": "resources/local/pico"}},
        "datasets": {"dialogues": {"bundled": "dialogues.jsonl"}, "general": {"bundled": "general.jsonl"}},
        "evals": {"general": {"dataset": "general", "score": "options"}},
        "arms": {
            "base": {"model": "pico"},
            "taken": {"parent": "base", "fit": {"method": "given", "path": str(adapter)}, "control": ["base"]},
            "trained": {"parent": "base", "fit": fit, "evals": []},
            "summed": {
                "parent": "base",
                "fit": {"method": "task_arithmetic", "vectors": ["taken", "trained"], "scale": 1.0},
                "control": ["taken"],
            },
            "further": {"parent": "taken", "fit": fit, "evals": []},
        },
        "questions": {
            "changes": {"asks": "Does the adapter change it?", "arm": "taken", "control": "base", "eval": "general"}
        },
        "charts": ["scores"],
    }
    (project / "config/config.yaml").write_text(yaml.safe_dump(config))
    said = workflow.run(project)
    assert "This is about these weights alone" in said and "results/report.html" in said
    assert "made by given from their adapter" in (project / "results/report.html").read_text(encoding="utf-8")

    weights = load_file(project / "results/arms/summed/seed0/weights/model.safetensors")
    block, stem = "model.layers.0.self_attn.q_proj.weight", FACTOR.removesuffix("lora_A.weight")
    factors = load_file(adapter / "adapter_model.safetensors")
    added = 6 / 4 * factors[f"{stem}lora_B.weight"] @ factors[f"{stem}lora_A.weight"]
    learned = load_file(project / "results/arms/trained/seed0/weights/model.safetensors")[block]
    assert torch.allclose(weights[block], learned + added, atol=1e-5), "the root, and both changes"
    further = read_manifest(project / "results/arms/further/seed0/manifest.json")
    assert "results/arms/taken/seed0/manifest.json" in further["parents"]

    assert workflow.planned(project) == set()
    shutil.move(adapter, tmp_path / "moved")
    adapter.symlink_to(tmp_path / "moved")
    assert workflow.planned(project) == set(), "a link at the old place"
    change(adapter / "adapter_model.safetensors", FACTOR, 2 * factors[FACTOR])
    made = {job for job in workflow.planned(project) if job.startswith("train")}
    assert made == {"train_given taken 0", "train_task_arithmetic summed 0", "train_sft further 0"}
