"""A GPU against the CPU, on a pico model: in fp32 they agree within the tolerances below, two runs on the GPU agree to
the last bit, and bf16 stays near. `make test-gpu`, on a machine with a GPU and a torch for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import pico_arms
import test_atlas
from imprint.composition import stacks
from imprint.composition.composing import Composition
from imprint.composition.vectors import Pool
from imprint.models import chains
from imprint.runtime import frame, parquet
from imprint.runtime.identity import read_json

PATHS = Path(__file__).with_name("paths.py")
RELATIVE = 1e-3  # of losses, norms and log-probabilities, after several steps of training
ABSOLUTE = 1e-3  # of weights and coefficients; the largest learning rate here is 0.1
BF16 = 0.1  # of the first step's loss, and of log-probabilities
FITS = (
    *("sft", "sft_lora", "sft_checkpointing", "grpo", "grpo_lora", "grpo_checkpointing", "grpo_kl_top_p"),
    *("atlas", "atlas_partitions", "atlas_on_a_fit"),
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What paths.py leaves: on the CPU, on the GPU, there again, and there in bf16."""
    if not torch.cuda.is_available():
        pytest.fail(f"torch {torch.__version__} sees no GPU here", pytrace=False)
    ways = {"cpu": ("cpu", "float32"), "gpu": ("cuda", "float32"), "again": ("cuda", "float32")}
    ways["bf16"] = ("cuda", "bfloat16")
    folders = {name: tmp_path_factory.mktemp(name) for name in ways}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, PATHS, *way, folders[name]], env=environment, stderr=subprocess.DEVNULL)
        for name, way in ways.items()
    ]
    assert [process.wait() for process in running] == [0] * len(ways)
    return folders


def curves(folder: Path, fit: str) -> dict[tuple[str, int], float]:
    if (error := folder / fit / "error.txt").exists():
        pytest.fail(error.read_text(), pytrace=False)
    rows = parquet.read(folder / fit / "curves.parquet", "curves").to_pylist()
    return {(row["quantity"], row["step"]): row["value"] for row in rows}


def weights(folder: Path, fit: str) -> dict[str, torch.Tensor]:
    (file,) = (folder / fit / "weights").glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("fit", FITS)
def test_training_agrees_with_the_cpu(made: dict[str, Path], fit: str) -> None:
    ours, theirs = curves(made["gpu"], fit), curves(made["cpu"], fit)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, rel=RELATIVE, abs=1e-5), key
    found, expected = weights(made["gpu"], fit), weights(made["cpu"], fit)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert float((found[name] - tensor).abs().max()) < ABSOLUTE, name


@pytest.mark.parametrize("fit", FITS)
def test_training_twice_gives_the_same_bits(made: dict[str, Path], fit: str) -> None:
    assert curves(made["gpu"], fit) == curves(made["again"], fit)
    found, again = weights(made["gpu"], fit), weights(made["again"], fit)
    assert all(torch.equal(tensor, again[name]) for name, tensor in found.items())


@pytest.mark.parametrize("fit", FITS)
def test_training_in_bf16_starts_where_fp32_does(made: dict[str, Path], fit: str) -> None:
    ours, theirs = curves(made["bf16"], fit), curves(made["gpu"], fit)
    assert ours.keys() == theirs.keys()
    if not fit.startswith("grpo"):  # whose loss is an average of advantages, near zero
        assert ours["loss", 1] == pytest.approx(theirs["loss", 1], rel=BF16)


def test_completions_are_those_of_the_cpu(made: dict[str, Path]) -> None:
    for fit in (name for name in FITS if name.startswith("grpo")):
        drawn = {
            name: parquet.read(made[name] / fit / "rollouts.parquet", "rollouts").column("response").to_pylist()
            for name in ("cpu", "gpu", "again")
        }
        assert drawn["gpu"] == drawn["again"]
        same = sum(a == b for a, b in zip(drawn["gpu"], drawn["cpu"], strict=True))
        assert same >= 0.9 * len(drawn["cpu"]), fit


@pytest.mark.parametrize("way", ["greedy", "sampled", "top_p", "options"])
def test_answers_are_those_of_the_cpu(made: dict[str, Path], way: str) -> None:
    found = {name: read_json(folder / "answers.json")[way] for name, folder in made.items()}
    assert found["gpu"] == found["again"]
    for (ours, logprob), (theirs, expected) in zip(found["gpu"], found["cpu"], strict=True):
        assert ours == theirs and logprob == pytest.approx(expected, rel=RELATIVE)
    if way == "options":
        for (_, logprob), (_, expected) in zip(found["bf16"], found["cpu"], strict=True):
            assert logprob == pytest.approx(expected, rel=BF16)


@pytest.mark.parametrize(
    ("names", "parts", "share"), [("a low", 1, 0.0), ("a low", 1, 0.5), ("a low", 5, 0.5), ("low", 1, 0.5)]
)
def test_coefficients_gradients_are_autograds(
    tmp_path: Path, names: str, parts: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors that stream to the GPU, vectors that are stacked there, parts of blocks, and adapters beside the weights,
    against `functional_call` on the CPU."""
    monkeypatch.setattr(stacks, "GPU_SHARE", share)
    root = pico_arms.root(tmp_path / "pico")
    arms = {"a": pico_arms.full(root, tmp_path / "a", 1), "low": pico_arms.lora(root, tmp_path / "low", 3)}
    model, _ = chains.load([root], "float32", "cuda")
    ours = Composition(model, Pool([root], {name: arms[name] for name in names.split()}), parts=parts, seed=7)
    assert bool(ours._stacks) == (share > 0 and parts == 1 and "a" in names)
    assert bool(ours.parameters) == ("a" in names)
    test_atlas.fill(ours)
    ours.merge()
    ids = test_atlas.IDS.cuda()
    logits: Any = model(ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    expected, gradient = test_atlas.by_autograd([root], ours)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert float((ours.values.grad.cpu() - gradient).norm() / gradient.norm()) < 1e-4


def test_auto_takes_the_gpu_that_a_job_was_given() -> None:
    assert frame.device("auto", 1) == "cuda" and frame.device("auto", 0) == "cpu"
    assert chains.dtype_of("auto", "cuda") == "bfloat16"
