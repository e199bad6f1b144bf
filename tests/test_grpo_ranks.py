"""A fit by GRPO that several ranks share: that it draws and learns what one rank does. The ranks are two processes on
the CPU, where sums go through gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import fitting
import pico_arms
import test_grpo
import test_launch
import test_ranks
from imprint.methods import Fit, grpo
from imprint.runtime import parquet
from imprint.runtime.identity import read_json
from imprint.runtime.plugins import Plug
from imprint.tables import dataset_rows
from imprint.training import launch

DRAWN: dict[str, Any] = {
    "data": "d",
    "reward": "ifeval.instruction_strict",
    "prompts_per_step": 2,
    "group_size": 4,
    "completion_tokens": 16,
}
FULL: dict[str, Any] = {
    "steps": 4,
    "learning_rate": 1e-5,
    "updates_per_rollout": 2,
    "micro_batch_size": 1,
    "beta": 0.1,
    "temperature": 0.9,
    "checkpoint_steps": 1,
    "loss": "grpo",
}
"""Of a fit of four steps of two updates, each of two passes in each rank, with a reference model."""
SEED = 5
"""With it, some rewards of the first step differ."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose output layer is not its embedding, as of larger models. TRL's pass reads that layer's weights, and
    never calls the layer."""
    return pico_arms.root(tmp_path_factory.mktemp("models") / "pico", tied=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "d.parquet"
    dataset_rows.write(path, "d", test_grpo.rows(), "0")
    return path


def spec(**settings: Any) -> launch.Spec:
    """The job of a fit."""
    plug = Plug(name="grpo", settings={**DRAWN, **settings})
    return test_launch.spec().model_copy(update={"seed": SEED, "method": plug, "contexts": [Plug(name="plain")]})


def on_one(root: Path, out: Path, **settings: Any) -> Fit:
    """A fit of one rank."""
    fit = test_grpo.job(root, out, seed=SEED, **DRAWN, **settings)
    grpo.fit(fit)
    return fit


@pytest.fixture(scope="module")
def unbroken(root: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit on two ranks."""
    folder = tmp_path_factory.mktemp("arms") / "tuned"
    test_ranks.on_two(spec(**FULL), [root], folder, data)
    return folder


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a table that a job has left."""
    listed: list[dict[str, Any]] = parquet.read(folder / f"{name}.parquet", name).to_pylist()
    return listed


def assert_same(folder: Path, fit: Fit) -> None:
    """That a folder's fit has drawn what another one has drawn, with the same rewards and advantages, and that the rest
    is the same but for rounding. Adam turns rounding into a part of the learning rate where a gradient is next to
    nothing, so one weight in a thousand may differ by more than 1e-6, and none by a learning rate."""
    drawn, expected = rows(folder, "rollouts"), fitting.table(fit, "rollouts")
    assert any(row["advantage"] for row in drawn if row["step"] == 1), "nothing is learned: change the seed"
    for ours, theirs in zip(drawn, expected, strict=True):
        assert ours.pop("logprob_sum") == pytest.approx(theirs.pop("logprob_sum"), abs=1e-4)
    assert drawn == expected
    curves, expected = rows(folder, "curves"), fitting.table(fit, "curves")
    assert [(row["step"], row["quantity"]) for row in curves] == [(row["step"], row["quantity"]) for row in expected]
    assert [row["value"] for row in curves] == pytest.approx([row["value"] for row in expected], rel=1e-5, abs=1e-6)
    ours, theirs = (load_file(next((each / "weights").glob("*.safetensors"))) for each in (folder, fit.out))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        apart = (ours[name] - tensor).abs()
        assert float((apart < 1e-6).float().mean()) >= 0.999 and apart.max() < fit.settings.learning_rate, name


def test_two_ranks_draw_and_learn_what_one_does(unbroken: Path, root: Path, tmp_path: Path) -> None:
    """The passes of one rank are as large as those of both together: `entropy`, `kl` and `clipped_share` are means over
    passes, and a pass of short completions counts as much as one of long ones."""
    assert_same(unbroken, on_one(root, tmp_path, **{**FULL, "micro_batch_size": 2}))
    assert read_json(unbroken / "manifest.json")["ranks"] == 2
    assert {path.name for path in unbroken.iterdir()} == {
        *("manifest.json", "weights", "curves.parquet", "rollouts.parquet")
    }
    assert max(row["value"] for row in rows(unbroken, "curves") if row["quantity"] == "kl") > 1e-6


def test_an_adapter_is_fitted_too(root: Path, data: Path, tmp_path: Path) -> None:
    """Without `micro_batch_size`, an update is one pass. One rank reads prompts once for their completions, and two
    read them with each."""
    settings = {"steps": 3, "learning_rate": 1e-3, "lora": {"rank": 4}, "beta": 0.1}
    test_ranks.on_two(spec(**settings), [root], tmp_path / "two", data)
    assert_same(tmp_path / "two", on_one(root, tmp_path / "one", **settings))


@pytest.mark.slow
def test_a_fit_whose_rank_is_killed_goes_on_to_the_same_bits(
    unbroken: Path, root: Path, data: Path, tmp_path: Path
) -> None:
    folder, _ = test_ranks.kill_a_rank(spec(**FULL), root, tmp_path, data, step=2)
    assert {path.name for path in (folder / "rollouts").iterdir()} >= {"000001.parquet"}
    test_ranks.on_two(spec(**FULL), [root], tmp_path, data)
    assert test_ranks.same_bits(tmp_path, unbroken)
    assert rows(tmp_path, "rollouts") == rows(unbroken, "rollouts")
