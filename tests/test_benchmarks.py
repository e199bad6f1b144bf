"""The benchmarks run, on a pico model; their figures mean nothing there."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pico_arms

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def script(path: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """A benchmark as a module, with the arguments that it is started with."""
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), BENCHMARKS / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_atlas_step_prints_its_figures_and_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pico_arms.root(tmp_path / "pico")
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parent / "workflow/scripts"))  # of the process that measures memory
    module = script("atlas_step.py", monkeypatch, "--model", str(tmp_path / "pico"), "--rounds", "1")
    monkeypatch.setattr(module, "BATCH", (2, 16))
    monkeypatch.setattr(module, "SMALL", (1, 8))
    module.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["limits"].keys() == module.LIMITS.keys() and isinstance(found["holds"], bool)
    assert all(found[key] > 0 for key in module.LIMITS)
    assert found["memory_mib"].keys() == {"2", "8"} and found["computed_in"] in ("float32", "bfloat16")


def test_grpo_step_compares_equal_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = pico_arms.root(tmp_path / "pico")
    compared = script("grpo_step.py", monkeypatch).compare(manifest, checkpointing=False)
    assert compared["completions_equal"] == compared["completions"] == 16 and compared["rewards_equal"]
    assert compared["loss_difference"] < 1e-5


@pytest.mark.workflow
def test_scale_dry_runs_as_many_jobs_on_both_sides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(BENCHMARKS)
    script("scale.py", monkeypatch, "4", "2", "1", "--repeats", "1").main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["jobs"] == figures["bare_jobs"] > 4 * 2 * 2
    assert figures["limits"].keys() <= figures.keys() and isinstance(figures["holds"], bool)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_gpu_benchmark_says_that_it_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("gpu/atlas_step.py", monkeypatch)
    with pytest.raises(SystemExit, match="sees no GPU here"):
        module.main()
