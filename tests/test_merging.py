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
from imprint.composition import measuring, merging, objectives
from imprint.composition.composing import Composition
from imprint.composition.vectors import Pool, generator
from imprint.methods import Fit, breadcrumbs, fisher, ram, shuffled_task, task_arithmetic, ties
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
    after = chains._from_folder(fit.out / "weights", folder, "float32", "cpu", 1)
    before = dict(chains._from_folder(folder, folder, "float32", "cpu", 1).named_parameters())
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


@pytest.mark.parametrize("name", ["ties", "breadcrumbs", "ram"])
def test_every_merge_may_choose_its_scale(made: Any, tmp_path: Path, name: str) -> None:
    """The losses are those of the merges at each scale, and the merge is the one at the chosen scale."""
    grid = job(made, tmp_path / "grid", name, scale=[0.0, 0.4, 1.0, -0.3], data={"d": "plain"})
    metrics = plugins.load("methods", name).fit(grid)
    losses = curve(grid, "loss")
    assert metrics["scale"] == grid.settings.scale[losses.index(min(losses))] and len(set(losses)) == 4
    fixed = job(made, tmp_path / "fixed", name, scale=metrics["scale"])
    plugins.load("methods", name).fit(fixed)
    assert fitting.weights(fixed) == fitting.weights(grid) and metrics["norm"] > 0
    summed = job(made, tmp_path / "sum", "task_arithmetic", scale=[0.0], data=["d"])
    assert losses[0] == pytest.approx(task_arithmetic.fit(summed)["loss"], rel=1e-6)


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


def test_breadcrumbs_by_row_masks_each_row() -> None:
    delta = torch.tensor([[1.0, -5.0, 3.0, -2.0, 4.0], [0.1, 0.2, -0.3, 0.4, 0.5]])
    rows = [breadcrumbs.middle(row, 0.2, 0.4) for row in delta]
    assert torch.equal(breadcrumbs.middle(delta, 0.2, 0.4, "row"), torch.stack(rows))
    assert not torch.equal(breadcrumbs.middle(delta, 0.2, 0.4), torch.stack(rows))
    assert torch.equal(breadcrumbs.middle(delta[0], 0.2, 0.4, "row"), rows[0])


def test_ram_by_hand() -> None:
    one, two = torch.tensor([0.2, 0.0, 0.4, 0.0]), torch.tensor([0.4, 0.1, 0.0, 0.0])
    assert ram.counts([one, two], 1e-5).tolist() == [[1, 1], [1, 1]]
    merged = ram.combine([one, two], 1e-5, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(merged, torch.tensor([0.3, 0.2, 0.4, 0.0]))


@pytest.mark.parametrize("per", ["vector", "tensor"])
def test_ram_averages_what_is_shared_and_keeps_what_is_not(made: Any, tmp_path: Path, per: str) -> None:
    given = {"epsilon": 2e-3, "r": 0.5, "alpha": 3.0, "per": per}
    found = fitted(job(made, tmp_path, "ram", **given), "ram")
    all_of = deltas(made, NAMES)
    changed = {name: delta.abs() > 2e-3 for name, delta in all_of.items()}
    shared = {name: (mask & (mask.sum(0) > 1)).flatten(1).sum(1).float() for name, mask in changed.items()}
    alone = {name: (mask & (mask.sum(0) == 1)).flatten(1).sum(1).float() for name, mask in changed.items()}
    if per == "vector":
        whole = (sum(shared.values()), sum(alone.values()))
        shared, alone = dict.fromkeys(shared, whole[0]), dict.fromkeys(alone, whole[1])
    for name, delta in all_of.items():
        growth = 1 + 0.5 * (shared[name] / alone[name].clamp(min=1)).clamp(max=3.0)
        expected = torch.zeros_like(delta[0])
        number = changed[name].sum(0)
        for one, mask, factor in zip(delta, changed[name], growth, strict=True):
            expected += torch.where(mask & (number == 1), one * factor, 0) + torch.where(
                mask & (number > 1), one / number.clamp(min=1), 0
            )
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


def arm_model(made: Any, arm: str) -> Any:
    model, _ = chains.load(made[1][arm], "float32", "cpu")
    return model


def test_regmean_solves_the_regression_of_each_layer(made: Any, tmp_path: Path) -> None:
    """Against least squares on the layer's own inputs: with `off_diagonal` 1, the outputs are as close as they can be
    to those of both models."""
    fit = job(made, tmp_path, "regmean", ["a", "b"], data=["d", "d"], off_diagonal=1.0, max_length=512)
    found = fitted(fit, "regmean")
    name, seen = "model.layers.0.mlp.up_proj", {}
    for arm in ("a", "b"):
        model = arm_model(made, arm)
        _, tokenizer = chains.load(made[0], "float32", "cpu")
        inputs = []
        handle = model.get_submodule(name).register_forward_pre_hook(lambda _, x, kept=inputs: kept.append(x[0][0]))
        for row in objectives.encoded(fit, tokenizer, fit.settings.data[0]):
            with torch.no_grad():
                model(input_ids=torch.tensor([row.input_ids]))
        handle.remove()
        x = torch.cat(inputs).double()
        seen[arm] = (x, x @ model.get_submodule(name).weight.double().T)
    xs, ys = (torch.cat([seen[arm][i] for arm in ("a", "b")]) for i in (0, 1))
    start = arm_model((made[0], {"root": made[0]}), "root").get_submodule(name).weight.detach()
    merged = (start + found[f"{name}.weight"]).double().T
    best = torch.linalg.lstsq(xs, ys).solution
    error, least = ((ys - xs @ each).square().sum().detach() for each in (merged, best))
    assert float(error) == pytest.approx(float(least), rel=1e-2)
    norm = "model.norm.weight"
    torch.testing.assert_close(found[norm], deltas(made, ["a", "b"])[norm].mean(0), rtol=1e-4, atol=1e-6)


def test_fisher_weighs_by_the_squared_gradient_of_drawn_tokens(made: Any, tmp_path: Path) -> None:
    """The information is that of many draws, and the merge is the mean that it weighs."""
    fit = job(made, tmp_path, "fisher", ["a", "b"], data=["d", "d"], max_length=512)
    found = fitted(fit, "fisher")
    pool = Pool(made[0], {arm: made[1][arm] for arm in ("a", "b")})
    total, weight = {}, {}
    for vector, (model, rows) in zip(pool.vectors, measuring.models(fit, pool), strict=True):
        information = fisher.fisher(model, rows, generator("fisher", fit.seed, vector.name))
        for name, p in model.named_parameters():
            total[name] = total.get(name, 0) + (information[name] + fisher.FLOOR) * p.detach()
            weight[name] = weight.get(name, 0) + information[name] + fisher.FLOOR
    before = dict(arm_model((made[0], {"root": made[0]}), "root").named_parameters())
    same(found, {name: (total[name] / weight[name] - before[name]).detach() for name in found})
    assert fitting.weights(
        fit
    )  # one row, by hand: gradients of each token's log-likelihood do not correlate in the mean
    row = rows[0]
    drawn = torch.Generator().manual_seed(0)
    mean = sum(fisher.fisher(model, [row], drawn)["model.norm.weight"] for _ in range(300)) / 300
    logits = model(input_ids=row.input_ids).logits[0, row.predicting]
    exact = torch.zeros_like(mean)
    norm = model.model.norm.weight
    for place in range(len(row.predicting)):
        logps = logits[place].log_softmax(0)
        every = torch.eye(len(logps))
        (gradients,) = torch.autograd.grad(logps, norm, every, retain_graph=True, is_grads_batched=True)
        exact += (logps.exp().detach()[:, None] * gradients.square()).sum(0)
    assert float(mean.sum()) == pytest.approx(float(exact.sum()), rel=0.15)


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
        ("ties", {"scale": [0.5, 1.0]}, "write `data: DATASET`"),
        ("regmean", {"data": ["d"]}, "found 1 datasets for 2 vectors"),
        ("fisher", {"data": [{"d": "nonsense"}, "d"]}, "no contexts plug-in named 'nonsense'"),
        ("fisher", {"data": [{"d": {"prior_prompt": "shout"}}, "d"]}, "'think', 'plan'"),
        ("ram", {"vectors": ["a", {"of": "a", "against": None}]}, "each may stand once"),
        ("shuffled_task", {"of": "x", "vectors": ["a"]}, "at least 2"),
    ],
)
def test_settings_that_mean_nothing(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        plugins.load("methods", name).Settings(**{"vectors": ["a", "b"], **given})
