"""Coefficients that two ranks learn together: what one learns alone. The ranks are processes on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import fitting
import pico_arms
import test_launch
import test_ranks
from imprint.methods import Fit
from imprint.runtime import parquet, plugins
from imprint.runtime.identity import file_sha256, read_json
from imprint.runtime.plugins import Plug
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named
from imprint.training import checkpoints, launch

SETTINGS = {"batch_size": 6, "rows_at_once": 2, "max_length": 512, "steps": 12, "check_steps": 3, "checkpoint_steps": 2}
ATLAS = {**SETTINGS, "data": ["d", "few"], "validation": "checked", "partitions": 3, "learning_rate": 0.02}
"""Of `few`, which has three rows, one rank gets two, and the other one and an empty row."""
NEGATION = {**SETTINGS, "data": "d", "control": "few", "budget": 1, "learning_rate": 0.02}
ROWS = {"d": fitting.dialogues(), "few": fitting.dialogues(6)[3:], "checked": fitting.dialogues(15)[10:]}


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """A root model, a fit of all its weights, an adapter on it, and an adapter on the root."""
    folder = tmp_path_factory.mktemp("models")
    root = pico_arms.root(folder / "pico")
    full = pico_arms.full(root, folder / "full", 1)
    return {
        "root": [root],
        "full": full,
        "both": pico_arms.lora(root, folder / "both", 5, full),
        "low": pico_arms.lora(root, folder / "low", 3),
        "high": pico_arms.lora(root, folder / "high", 4),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    paths = {name: folder / f"{name}.parquet" for name in ROWS}
    for name, rows in ROWS.items():
        dataset_rows.write(paths[name], name, rows, "0")
    return paths


def spec(method: str, arms: dict[str, list[Path]], settings: dict[str, Any]) -> launch.Spec:
    made = plugins.load("methods", method).Settings(vectors=list(arms), **settings)
    datasets = list(plugins.load("methods", method).inputs(made).datasets)
    chains = {name: list(map(str, chain)) for name, chain in arms.items()}
    plug = Plug(name=method, settings=json.loads(made.model_dump_json()))
    return test_launch.spec().model_copy(update={"method": plug, "inputs": Named(datasets=datasets, arms=chains)})


def on_two(spec: launch.Spec, start: list[Path], files: dict[str, Path], folder: Path) -> None:
    test_ranks.on_two(spec, start, folder, *(files[name] for name in spec.inputs.datasets))


def on_one(method: str, start: list[Path], arms: dict[str, list[Path]], out: Path, settings: dict[str, Any]) -> Fit:
    fit = fitting.job(method, start, out, datasets=ROWS, arms=arms, vectors=list(arms), **settings)
    plugins.load("methods", method).fit(fit)
    return fit


def assert_same(folder: Path, fit: Fit) -> None:
    """That a folder's fit is another one but for rounding."""
    ours, theirs = (load_file(each / "weights/model.safetensors") for each in (folder, fit.out))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - tensor).abs().max()) for name, tensor in theirs.items()) < 1e-6
    for name in ("curves", "coefficients"):
        rows, expected = parquet.read(folder / f"{name}.parquet", name).to_pylist(), fitting.table(fit, name)
        values = [[row.pop("value") for row in each] for each in (rows, expected)]
        assert rows == expected
        assert values[0] == pytest.approx(values[1], rel=1e-5, abs=1e-6), name


def together(arms: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """The vectors of a composition."""
    return {name: arms[name] for name in ("both", "low")}


@pytest.fixture(scope="module")
def unbroken(arms: dict[str, list[Path]], files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit of two ranks."""
    folder = tmp_path_factory.mktemp("arms") / "composed"
    on_two(spec("atlas", together(arms), ATLAS), arms["root"], files, folder)
    return folder


def test_two_ranks_learn_what_one_learns(unbroken: Path, arms: dict[str, list[Path]], tmp_path: Path) -> None:
    """Vectors with adapters and with all weights, with checks, and with parts of blocks."""
    assert_same(unbroken, on_one("atlas", arms["root"], together(arms), tmp_path, ATLAS))
    manifest = read_json(unbroken / "manifest.json")
    assert manifest["ranks"] == 2 and manifest["metrics"]["steps"] == 12 and manifest["metrics"]["best_step"] > 0
    assert {path.name for path in unbroken.iterdir()} == {
        *("manifest.json", "curves.parquet", "coefficients.parquet", "weights")
    }


def test_two_ranks_unlearn_what_one_unlearns(
    arms: dict[str, list[Path]], files: dict[str, Path], tmp_path: Path
) -> None:
    """The start is a chain, accuracies over all rows decide, and a budget's vectors are chosen by their gradients."""
    vectors = {name: arms[name] for name in ("full", "low")}
    on_two(spec("atlas_negation", vectors, NEGATION), arms["both"], files, tmp_path / "two")
    assert_same(tmp_path / "two", on_one("atlas_negation", arms["both"], vectors, tmp_path / "one", NEGATION))


def test_two_ranks_learn_adapters_beside_the_weights(
    arms: dict[str, list[Path]], files: dict[str, Path], tmp_path: Path
) -> None:
    settings = {**ATLAS, "partitions": 1}
    vectors = {name: arms[name] for name in ("low", "high")}
    on_two(spec("atlas", vectors, settings), arms["root"], files, tmp_path / "two")
    assert_same(tmp_path / "two", on_one("atlas", arms["root"], vectors, tmp_path / "one", settings))


def test_a_killed_rank_ends_the_fit_which_goes_on_to_the_same_bits(
    unbroken: Path, arms: dict[str, list[Path]], files: dict[str, Path], tmp_path: Path
) -> None:
    ordered = spec("atlas", together(arms), ATLAS)
    datasets = [files[name] for name in ordered.inputs.datasets]
    folder, _ = test_ranks.kill_a_rank(ordered, *arms["root"], tmp_path, *datasets, step=2)
    assert checkpoints.last(folder) is not None
    on_two(ordered, arms["root"], files, tmp_path)
    for name in ("weights/model.safetensors", "curves.parquet", "coefficients.parquet"):
        assert file_sha256(tmp_path / name) == file_sha256(unbroken / name)
