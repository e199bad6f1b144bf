"""Baselines of a learned composition: each merge rule against its definition on small tensors, and as a fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file

import fitting
import mergekit_results
import pico_arms
from fitting import curve, dialogues, table
from imprint.composition import merging
from imprint.composition.composing import Composition
from imprint.composition.vectors import Pool
from imprint.methods import Fit, breadcrumbs, shuffled_task, task_arithmetic, ties
from imprint.models import chains
from imprint.runtime import parquet, plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import write_json

NAMES = ["a", "b", "low"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, list[Path]]]:
    folder = tmp_path_factory.mktemp("arms")
    root = pico_arms.root(folder / "pico")
    low = pico_arms.lora(root, folder / "low", 3)
    return [root], {"a": pico_arms.full(root, folder / "a", 1), "b": pico_arms.full(root, folder / "b", 2), "low": low}


def job(made: Any, out: Path, name: str, arms: list[str] | None = None, **given: Any) -> Fit:
    chain, vectors = made
    named = NAMES if arms is None else arms
    read = {name: chain for name, chain in vectors.items() if name in {*named, given.get("of")}}
    return fitting.job(
        name, chain, out, arm="merged", datasets={"d": dialogues()}, arms=read, **{"vectors": named, **given}
    )


def fitted(fit: Fit, name: str) -> dict[str, torch.Tensor]:
    """What the fit added to the start, through the weights as they load."""
    plugins.load("methods", name).fit(fit)
    folder = fit.manifests[0].parent
    after = chains._from_folder(fit.out / "weights", folder)
    before = dict(chains._from_folder(folder, folder).named_parameters())
    return {name: (p - before[name]).detach() for name, p in after.named_parameters()}


def deltas(made: Any, arms: list[str]) -> dict[str, torch.Tensor]:
    pool = Pool(made[0], {arm: made[1][arm] for arm in arms})
    return {block: torch.stack([v.delta(block) for v in pool.vectors]) for block in pool.blocks.shapes}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_one_scale_is_the_scaled_sum(made: Any, tmp_path: Path) -> None:
    fit = job(made, tmp_path, "task_arithmetic", scale=-0.5)
    same(fitted(fit, "task_arithmetic"), {name: -0.5 * delta.sum(0) for name, delta in deltas(made, NAMES).items()})
    assert {row["value"] for row in table(fit, "coefficients")} == {-0.5}


def test_a_grid_takes_the_scale_with_the_lowest_loss(made: Any, tmp_path: Path) -> None:
    fit = job(made, tmp_path, "task_arithmetic", scale=[0.0, 0.4, 1.0, -0.3], data="d")
    metrics = task_arithmetic.fit(fit)
    losses = curve(fit, "loss")
    assert len(losses) == 4 and len(set(losses)) == 4
    assert metrics["scale"] == fit.settings.scale[losses.index(min(losses))] and metrics["loss"] == min(losses)


def test_ties_by_hand() -> None:
    one = torch.tensor([[3.0, -1.0, 0.0, 2.0]])
    two = torch.tensor([[1.0, 2.0, -4.0, -2.0]])
    assert ties.elect([one, two]).tolist() == [[2.0, 2.0, -4.0, 2.0]]  # the last is balanced: plus
    assert ties.largest(one, 0.5).tolist() == [[3.0, 0.0, 0.0, 2.0]]


@pytest.mark.parametrize("per", ["vector", "tensor"])
def test_ties_trims_elects_and_takes_the_mean(made: Any, tmp_path: Path, per: str) -> None:
    found = fitted(job(made, tmp_path, "ties", per=per, density=0.3, scale=0.7), "ties")
    all_of = deltas(made, NAMES)
    if per == "vector":
        whole = torch.cat([delta.flatten(1) for delta in all_of.values()], 1).abs()
        bounds = whole.sort(1, descending=True).values[:, round(0.3 * whole.shape[1]) - 1]
        trimmed = {n: d * (d.abs() >= bounds.view(-1, *[1] * (d.dim() - 1))) for n, d in all_of.items()}
    else:
        trimmed = {n: torch.stack([ties.largest(one, 0.3) for one in d]) for n, d in all_of.items()}
    expected = {}
    for name, delta in trimmed.items():
        up, down = delta.clamp(min=0).sum(0), -delta.clamp(max=0).sum(0)  # the paper's total mass of either sign
        side = torch.where(up >= down, 1.0, -1.0)
        agree = (delta.sign() == side).float()
        expected[name] = 0.7 * (delta * agree).sum(0) / agree.sum(0).clamp(min=1)
    same(found, expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("task_arithmetic", {"scale": 1.0}),
        ("ties", {"per": "tensor", "density": 0.25, "scale": 1.0}),
        ("breadcrumbs", {"outliers": 1 / 32, "noise": 1 - 0.125 - 1 / 32, "scale": 1.0}),
    ],
)
def test_merges_are_mergekits_where_the_definitions_agree(name: str, given: Any, tmp_path: Path) -> None:
    """Against what whole runs of mergekit left (`mergekit_results.py`): density within each tensor, sums normalised for
    TIES alone."""
    root, chains = mergekit_results.arms(tmp_path)
    fit = job(([root], chains), tmp_path / "merged", name, list(chains), **given)
    plugins.load("methods", name).fit(fit)
    ours = mergekit_results.sample(load_file(fit.out / "weights/model.safetensors"))
    theirs = load_file(Path(__file__).with_name("mergekit.safetensors"))
    assert {f"{name}/{block}" for block in ours} == {key for key in theirs if key.startswith(f"{name}/")}
    for block, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[f"{name}/{block}"], rtol=0, atol=1e-6, msg=f"{name} {block}")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=60), st.floats(0.01, 1))
def test_the_threshold_is_the_one_of_sorting(values: list[float], keep: float) -> None:
    tensor = torch.tensor(values)

    class One:
        class blocks:
            shapes = {"x": tuple(tensor.shape)}  # noqa: RUF012

        @staticmethod
        def delta(block: str) -> torch.Tensor:
            return tensor

    expected = tensor.abs().sort(descending=True).values[max(1, round(keep * len(values))) - 1]
    assert merging.threshold(One, One, keep) == float(expected)  # type: ignore[arg-type]


def test_dare_at_density_one_is_task_arithmetic_and_is_unbiased(made: Any, tmp_path: Path) -> None:
    all_of = deltas(made, NAMES)
    same(fitted(job(made, tmp_path / "1", "dare", density=1.0), "dare"), {n: d.sum(0) for n, d in all_of.items()})
    found = fitted(job(made, tmp_path / "2", "dare", arms=["a"], density=0.25), "dare")
    name = "model.embed_tokens.weight"
    kept = found[name].abs() > 1e-6
    assert float(kept.float().mean()) == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(found[name][kept], 4 * all_of[name][0][kept], rtol=1e-3, atol=1e-6)
    same(fitted(job(made, tmp_path / "3", "dare", arms=["a"], density=0.25), "dare"), found)


def test_breadcrumbs_drops_both_ends(made: Any, tmp_path: Path) -> None:
    assert breadcrumbs.middle(torch.tensor([1.0, -5.0, 3.0, -2.0, 4.0]), 0.2, 0.4).tolist() == [0, 0, 3.0, 0, 4.0]
    found = fitted(job(made, tmp_path, "breadcrumbs", arms=["a"], scale=1.0), "breadcrumbs")
    for name, delta in deltas(made, ["a"]).items():
        size = delta[0].numel()
        left = size - int(0.007 * size) - int(0.85 * size)
        assert abs(int((found[name].abs() > 0).sum()) - left) <= 2  # an entry may be lost in rounding


def test_the_shuffled_control_has_the_neighbours_coefficients(made: Any, tmp_path: Path) -> None:
    chain, arms = made
    pool = Pool(chain, {name: arms[name] for name in ("a", "b")})
    composed = Composition(None, pool)
    with torch.no_grad():
        composed.values.copy_(torch.randn(composed.values.shape, generator=torch.Generator().manual_seed(0)))
    rows = composed.rows("composed", 0)
    (tmp_path / "of").mkdir()
    write_json(tmp_path / "of" / "manifest.json", {})
    parquet.write(tmp_path / "of" / "coefficients.parquet", "coefficients", rows)
    all_arms = (chain, {**arms, "composed": [chain[0], tmp_path / "of" / "manifest.json"]})
    fit = job(all_arms, tmp_path / "out", "shuffled_task", ["a", "b"], of="composed")
    shuffled_task.fit(fit)
    values = {(row["vector"], row["block"]): row["value"] for row in rows}
    other = {"a": "b", "b": "a"}
    written = table(fit, "coefficients")
    assert [row["value"] for row in written] == [values[other[row["vector"]], row["block"]] for row in written]
    with pytest.raises(ImprintError, match=r"was composed of a, b; write `vectors: \[a, b\]`"):
        shuffled_task.fit(job(all_arms, tmp_path / "wrong", "shuffled_task", ["a", "low"], of="composed"))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("task_arithmetic", {}, "write `data: DATASET`"),
        ("task_arithmetic", {"scale": 1.0, "data": "d"}, "leave `data` out"),
        ("breadcrumbs", {"outliers": 0.3, "noise": 0.7}, "together they drop everything"),
        ("ties", {"density": 0.0}, "greater than 0"),
        ("shuffled_task", {"of": "x", "vectors": ["a"]}, "at least 2"),
    ],
)
def test_settings_that_mean_nothing(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        plugins.load("methods", name).Settings(**{"vectors": ["a", "b"], **given})
