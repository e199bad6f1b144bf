"""Weights that are not those that were written, and results of another run in a file's place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

import pico
import pico_arms
import security
from fake_results import score
from imprint.artifacts import lora
from imprint.composition.vectors import Pool
from imprint.models import chains, model_files, sources
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, read_json


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fetched model, a full fit and a LoRA fit."""
    folder = tmp_path_factory.mktemp("made")
    pico.make(folder / "resources/local/pico")
    sources.fetch({"path": "resources/local/pico"}, folder / "resources/models/pico", folder)
    root = folder / "resources/models/pico/manifest.json"
    pico_arms.full(root, folder / "arms/full")
    pico_arms.lora(root, folder / "arms/lora")
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "project"))


def chain(project: Path, arm: str | None) -> list[Path]:
    root = project / "resources/models/pico/manifest.json"
    return [root] if arm is None else [root, project / "arms" / arm / "manifest.json"]


def flip(file: Path) -> None:
    """Change two bytes in the middle of a file, and nothing of its size or time."""
    status, content = file.stat(), bytearray(file.read_bytes())
    for at in (len(content) // 2, len(content) // 2 + 1):
        content[at] ^= 0x7F
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


DAMAGE = {
    "flipped": flip,
    "truncated": lambda file: os.truncate(file, file.stat().st_size - 10),
    "missing": Path.unlink,
    "no folder": lambda file: shutil.rmtree(file.parent),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("arm", "file"),
    [("full", "model.safetensors"), ("lora", "adapter_model.safetensors"), ("lora", "adapter_config.json")],
)
def test_a_fits_weights_that_are_not_what_was_written(project: Path, arm: str, file: str, damage: str) -> None:
    links = chain(project, arm)
    path = links[-1].parent / "weights" / file
    DAMAGE[damage](path)
    for read in (lambda: chains.load(links, "float32", "cpu"), lambda: Pool(links[:1], {"a": links})):
        with pytest.raises(ImprintError) as error:
            read()
        assert str(path.parent) in str(error.value)
        assert f"delete {links[-1]} and run again, which fits" in str(error.value), "the remedy is a fit's"
    security.seen(
        "a fit's weights with flipped bytes, truncated or gone",
        "compared with the manifest's sha256 at the first load of a run; an error names the file and what to delete",
    )


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name != "no folder"])
@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_models_files_that_are_not_what_was_fetched(project: Path, file: str, damage: str) -> None:
    links = chain(project, None)
    DAMAGE[damage](links[0].parent / file)
    for read in (lambda: chains.load(links, "float32", "cpu"), lambda: Pool(links, {"a": chain(project, "full")})):
        with pytest.raises(ImprintError) as error:
            read()
        assert str(links[0].parent / file) in str(error.value)
        assert f"-f -- {links[0].parent / 'manifest.json'}` fetches the model" in str(error.value)
    if file == "model.safetensors":
        chains.load(chain(project, "full"), "float32", "cpu")  # whose weights take the place of the model's
    security.seen(
        "a fetched model's files with flipped bytes, truncated or gone",
        "compared with the manifest's sha256 at the first load of a run; an error names the file and the command that "
        "fetches the model",
    )


def test_a_run_hashes_a_file_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return file_sha256(path)

    def load(run: str | None, arm: str = "full") -> int:
        """Files hashed when a new process of a run loads an arm."""
        hashed.clear()
        monkeypatch.setattr(model_files, "_verified", set())
        monkeypatch.setenv("IMPRINT_RUN", run) if run else monkeypatch.delenv("IMPRINT_RUN", raising=False)
        chains.links(chain(project, arm))
        return len(hashed)

    monkeypatch.chdir(project)
    monkeypatch.setattr(model_files, "file_sha256", counted)
    every = load("one")
    assert every > 1 and load("one") == 0
    assert load("two") == every, "each run looks for itself"
    assert load(None) == load(None) == every, "outside a run, each process does"
    os.utime(project / "arms/full/weights/model.safetensors")
    assert load("two") == 1


def test_a_lora_fits_config_is_written_in_one_order(project: Path, tmp_path: Path) -> None:
    """A set's order differs between processes; the manifest must not."""
    from peft import LoraConfig, get_peft_model

    model, _ = chains.load(chain(project, None), "float32", "cpu")
    names = {"v_proj", "q_proj", "up_proj", "down_proj", "o_proj", "k_proj"}
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=names, task_type="CAUSAL_LM"))
    lora.save(adapted, tmp_path)
    assert read_json(tmp_path / "weights/adapter_config.json")["target_modules"] == sorted(names)


def test_what_was_verified_is_what_is_loaded(project: Path) -> None:
    base, _ = chains.load(chain(project, None), "float32", "cpu")
    tuned, _ = chains.load(chain(project, "lora"), "float32", "cpu")
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.allclose(base(ids).logits, tuned(ids).logits)


@pytest.mark.parametrize("where", ["a/seed0/sums", "b/seed1/sums", "b/seed0/general"])
def test_results_of_another_run_in_a_files_place(where: str, tmp_path: Path) -> None:
    rows = [score("b", "sums", "0" * 16 + "-0", "correct", 1.0)]
    right, wrong = (tmp_path / f"scores/{name}.parquet" for name in ("b/seed0/sums", where))
    for path in (right, wrong):
        parquet.write(path, "scores", rows)
    assert parquet.read(right, "scores").num_rows == 1
    with pytest.raises(ImprintError, match="instead of") as error:
        parquet.read(wrong, "scores")
    assert str(wrong) in str(error.value) and "delete it and run again" in str(error.value)
    security.seen(
        "generations, judgements or scores of another arm, seed or eval put in place",
        "an error from whatever reads them, naming the file and what to delete",
    )
