"""Odd models: each is refused when it is fetched, with one message, and in bounded time and memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pico
import security
from conftest import ROOT
from imprint.config import catalog
from imprint.models import model_trial, sources
from imprint.runtime.errors import ImprintError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico.make(tmp_path_factory.mktemp("made") / "pico")


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A model folder to spoil."""
    return Path(shutil.copytree(made, tmp_path / "pico"))


def change(name: str, **values: Any) -> Callable[[Path], None]:
    """Lay values on a JSON file of the model."""

    def spoil(model: Path) -> None:
        given = json.loads((model / name).read_text()) if (model / name).exists() else {}
        (model / name).write_text(json.dumps(given | values))

    return spoil


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda model: (model / name).write_text(text) and None


def add_tokens(model: Path, number: int, **more: Any) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    token = tokenizer["added_tokens"][0] | more
    first = max(tokenizer["model"]["vocab"].values()) + 1
    tokenizer["added_tokens"] += [token | {"id": first + i, "content": f"<|{i}|>"} for i in range(number)]
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))


def never_ending_expression(model: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated", "invert": False}
    steps = [split, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]
    change("tokenizer.json", pre_tokenizer={"type": "Sequence", "pretokenizers": steps})(model)


def doublings(model: Path) -> None:
    double = {"type": "Replace", "pattern": {"Regex": "(?=.)"}, "content": "aa"}
    change("tokenizer.json", normalizer={"type": "Sequence", "normalizers": [double] * 40})(model)


def refused(model: Path, said: str) -> None:
    with pytest.raises(ImprintError, match=said):
        sources.fetch({"path": "pico"}, model.parent / "models/pico", model.parent)
    assert not (model.parent / "models/pico").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change("config.json", quantization_config={"quant_method": "bitsandbytes"}), "^pico has quantized weights"),
        (change("generation_config.json", eos_token_id=[[2]]), r"its eos_token_id is \[\[2\]\]"),
        (change("generation_config.json", eos_token_id=100_000), "its eos_token_id is 100000"),
        (change("generation_config.json", eos_token_id=-5), "its eos_token_id is -5"),
        (change("config.json", vocab_size=100), "and the model has the tokens 0 to 99"),
        (lambda model: add_tokens(model, 1, special=False), r"its token '<\|0\|>' has the id"),
        (change("adapter_config.json", peft_type="LORA"), "^pico holds an adapter"),
        (write("config.json", "[" * 100_000), "^pico: its config.json must hold a JSON object"),
        (write("config.json", '{"vocab_size": ' + "9" * 5000 + "}"), "^pico: its config.json must hold a JSON object"),
        (change("config.json", vocab_size=10**4000), "^pico: transformers makes no language model of its config"),
        (write("tokenizer.json", "[" * 100_000), "^pico: the tokenizer in .* cannot be loaded"),
    ],
)
def test_what_would_fail_later_is_refused_when_it_is_fetched(
    spoil: Callable[[Path], None], said: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_trial, "passed", model_trial.run_trial)  # in this process, which has torch already
    spoil(model)
    refused(model, said)
    security.seen(
        "a model with quantized weights, end tokens that are none, tokens beyond the vocabulary, an adapter beside it, "
        "a deep or bigint config",
        "refused when it is fetched, with what is wrong",
    )


@pytest.mark.parametrize(
    "spoil",
    [
        change("config.json", num_hidden_layers=10**7),
        never_ending_expression,
        doublings,
        lambda model: add_tokens(model, 10**6),
        write("chat_template.jinja", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
    ],
    ids=["layers", "expression", "doublings", "tokens", "template"],
)
def test_a_model_that_never_ends(spoil: Callable[[Path], None], model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_trial, "CPU_SECONDS", 4)
    spoil(model)
    refused(
        model,
        "^pico: its tokenizer, chat template or config did not pass a trial|MemoryError|retry-limit",
    )
    security.seen(
        "a model of ten million layers, a million tokens, 40 doublings, a loop in its chat template, or a regular "
        "expression that never ends on a run of one letter",
        "refused when it is fetched, after two minutes of CPU time or 4 GiB at most",
    )


def test_a_good_model_passes_quickly(model: Path) -> None:
    add_tokens(model, 1)  # a special token that no chat uses, as some text models have one for images
    began = time.process_time()
    sources.fetch({"path": "pico"}, model.parent / "models/pico", model.parent)
    assert time.process_time() - began < 5
    assert (model.parent / "models/pico/manifest.json").is_file()


def test_the_hub_address_with_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://me:hunter2@127.0.0.1:9/hub")
    with pytest.raises(ImprintError, match="HF_ENDPOINT holds a user name or a password for 127") as refusal:
        sources.fetch({"hub": "a/b", "revision": "0" * 40}, tmp_path / "models/b", tmp_path)
    assert "hunter2" not in str(refusal.value)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/hub")
    catalog.check_endpoint()
    security.seen("a password in HF_ENDPOINT, which the hub's client prints", "refused without printing it")


def test_jobs_without_network_have_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, subprocess, sys; from imprint.runtime import frame; frame.prepare(1, network=len(sys.argv) > 1)\n"
        "print(os.environ.get('HF_TOKEN'), os.environ.get('HUGGING_FACE_HUB_TOKEN'), flush=True)\n"
        "subprocess.run(['sh', '-c', 'echo $HF_TOKEN $HUGGING_FACE_HUB_TOKEN'])"
    )
    tokens = {"HF_TOKEN": "secret_1", "HUGGING_FACE_HUB_TOKEN": "secret_2"}
    environment = {**os.environ, **tokens, "PYTHONPATH": str(ROOT / "workflow/scripts")}

    def job(*network: str) -> list[str]:
        command = [sys.executable, "-c", code, *network]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    assert job() == ["None", "None"]
    assert job("network") == ["secret_1", "secret_2"] * 2
    security.seen(
        "the hub's token in the environment of every Slurm job", "a job that fetches nothing drops it as it starts"
    )
