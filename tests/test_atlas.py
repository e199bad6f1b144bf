"""aTLAS on a pico model: the coefficients' gradients against autograd, the algebra of compositions, and the fit."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.func import functional_call

import fitting
import pico
import pico_arms
from fitting import dialogues, table, weights
from imprint.composition import stacks
from imprint.composition.composing import Composition, groups, place
from imprint.composition.sharing import partition
from imprint.composition.vectors import CHUNK, CPU, Pool, Random, pieces
from imprint.methods import Fit, atlas, atlas_random
from imprint.models import chains
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_json, write_json
from imprint.runtime.ranks import Ranks
from imprint.training.examples import examples
from imprint.training.token_loss import collate, cross_entropy

IDS = torch.randint(3, 250, (3, 40), generator=torch.Generator().manual_seed(0))
KINDS = ["tied", "untied", "lora", "mixed", "lora on full", "bfloat16 root"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Path], dict[str, list[Path]]]]:
    """Per kind: the chain that a composition starts from, and its vectors."""
    folder = tmp_path_factory.mktemp("arms")
    root = pico_arms.root(folder / "pico")
    a, b = pico_arms.full(root, folder / "a", 1), pico_arms.full(root, folder / "b", 2)
    low, high = pico_arms.lora(root, folder / "low", 3), pico_arms.lora(root, folder / "high", 4)
    both = pico_arms.lora(root, folder / "both", 5, a)
    other = pico_arms.root(folder / "untied", tied=False)
    half = pico_arms.root(folder / "half")
    small = chains._from_folder(half.parent, half.parent, "bfloat16", "cpu", 1)
    small.save_pretrained(half.parent)
    pico.sums(half)
    return {
        "tied": ([root], {"a": a, "b": b}),
        "untied": ([other], {"c": pico_arms.full(other, folder / "c", 1), "d": pico_arms.full(other, folder / "d", 2)}),
        "lora": ([root], {"low": low, "high": high}),
        "mixed": (a, {"low": low, "b": b, "a": a}),
        "lora on full": ([root], {"both": both, "low": low}),
        "bfloat16 root": ([half], {"e": pico_arms.full(half, folder / "e", 1)}),
    }


def composed(chain: list[Path], arms: dict[str, list[Path]], **settings: Any) -> tuple[Any, Composition]:
    model, _ = chains.load(chain, "float32", "cpu")
    return model, Composition(model, Pool(chain, arms), **settings)


@pytest.fixture(params=["streamed", "stacked", "some stacked"])
def stacking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How vectors lie where a step reads them. On a GPU they are stacked, as far as there is room; here likewise."""
    room = {"streamed": 0.0, "stacked": math.inf, "some stacked": 60_000.0}[request.param]
    monkeypatch.setattr(stacks, "room", lambda device: room)
    return str(request.param)


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS, use_cache=False).logits
    return found


def fill(made: Composition, seed: int = 0) -> None:
    with torch.no_grad():
        made.values.copy_(torch.randn(made.values.shape, generator=torch.Generator().manual_seed(seed)))


def loss_of(model: Any, logits: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())


def by_autograd(chain: list[Path], made: Composition) -> tuple[float, torch.Tensor]:
    """The loss and the gradient of the coefficients through `functional_call`, with every vector multiplied out."""
    model, _ = chains.load(chain, "float32", "cpu")
    values = made.values.detach().cpu().clone().requires_grad_()
    start, merged = dict(model.named_parameters()), {}
    for name, tensor in start.items():
        merged[name] = tensor.detach().clone()
        if name in made.group:
            coefficients = values[:, made.group[name]]
            if made.parts == 1:
                scale = coefficients.view(-1, *[1] * tensor.dim())
            else:
                index = partition(made.seed, name, 0, tensor.numel(), made.parts).view(tensor.shape)
                scale = coefficients[:, index]
            merged[name] = merged[name] + (scale * torch.stack([v.delta(name) for v in made.pool.vectors])).sum(0)
    loss = loss_of(model, functional_call(model, merged, (IDS,), {"use_cache": False}, tie_weights=True).logits)
    loss.backward()
    assert values.grad is not None
    return float(loss.detach()), values.grad


@pytest.mark.parametrize("parts", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_autograds(
    made: Any, kind: str, parts: int, stacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imprint.composition.vectors.CHUNK", 1000)  # several pieces a block
    model, ours = composed(*made[kind], parts=parts, seed=7)
    dense = {name for name in ours.parameters if parts == 1 and any(v.dense for v in ours.pool.vectors)}
    stacked = set(ours._stacks)
    assert stacked <= dense and (stacked == dense) == (stacking == "stacked" or not dense)
    assert (0 < len(stacked) < len(dense)) == (stacking == "some stacked" and bool(dense))
    fill(ours)
    ours.merge()
    loss = loss_of(model, model(IDS, use_cache=False).logits)
    loss.backward()
    expected, gradient = by_autograd(made[kind][0], ours)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)
    assert float((ours.values.grad - gradient).norm() / gradient.norm()) < 1e-5
    assert all(p.grad is None for p in model.parameters())
    largest = gradient.abs().max()
    assert float((ours.values.grad - gradient).abs().max()) < 1e-5 * largest


def test_gradients_are_finite_differences(made: Any) -> None:
    chain, arms = made["mixed"]
    model = chains.load(chain, "float32", "cpu")[0].double()
    ours = Composition(model, Pool(chain, arms))
    fill(ours)

    def loss() -> torch.Tensor:
        ours.merge()
        return loss_of(model, model(IDS, use_cache=False).logits)

    loss().backward()
    gradient = ours.values.grad.clone()
    step = 1e-3
    for at in [(0, ours.group["model.layers.0.mlp.up_proj.weight"], 0), (1, 0, 0), (2, 5, 0)]:
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                ours.values[at] += sign * step
                ends.append(float(loss()))
                ours.values[at] -= sign * step
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(
            float(gradient[at]), rel=2e-2, abs=2e-6
        )  # sums are fp32


def test_gradients_add_up_over_micro_batches_and_double_passes(made: Any) -> None:
    model, ours = composed(*made["mixed"])
    fill(ours)
    ours.merge()
    loss_of(model, model(IDS, use_cache=False).logits).backward()
    whole, ours.values.grad = ours.values.grad, None
    for i in range(3):
        logits = model(IDS[i : i + 1], use_cache=False).logits
        part = torch.nn.functional.cross_entropy(logits[0, :-1], IDS[i, 1:])
        (part / 3).backward()
    torch.testing.assert_close(ours.values.grad, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("granularity", ["layer", "kind", "vector"])
def test_coarser_granularity_is_the_sum_of_its_blocks(made: Any, granularity: str) -> None:
    gradients = {}
    for name in ("tensor", granularity):
        model, ours = composed(*made["tied"], granularity=name)
        with torch.no_grad():
            ours.values.fill_(0.3)
        ours.merge()
        loss_of(model, model(IDS, use_cache=False).logits).backward()
        gradients[name] = ours.values.grad
    fine = groups(ours.blocks, "tensor")
    for group in set(ours.group.values()):
        members = [fine[block] for block in ours.blocks if ours.group[block] == group]
        torch.testing.assert_close(gradients[granularity][:, group], gradients["tensor"][:, members].sum(1))
    sizes = {"vector": 1, "layer": 2 + 2, "kind": 9 + 2}  # and the embedding and the last norm
    assert gradients[granularity].shape == (2, sizes[granularity], 1)


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_zero_coefficients_are_the_start_bit_for_bit(
    made: Any, tmp_path: Path, kind: str, parts: int, stacking: str
) -> None:
    chain, arms = made[kind]
    logits = logits_of(chains.load(chain, "float32", "cpu")[0])
    start = {name: p.clone() for name, p in chains.load(chain, "float32", "cpu")[0].named_parameters()}
    model, ours = composed(chain, arms, parts=parts)
    fill(ours)
    ours.merge()  # away, and back
    with torch.no_grad():
        ours.values.zero_()
    ours.merge()
    assert all(torch.equal(p.view(torch.int32), start[name].view(torch.int32)) for name, p in model.named_parameters())
    assert torch.equal(logits_of(model), logits)


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_unit_coefficients_are_the_arms(made: Any, kind: str, parts: int, stacking: str) -> None:
    chain, arms = made[kind]
    for i, name in enumerate(arms):
        model, ours = composed(chain[:1], arms, parts=parts)
        with torch.no_grad():
            ours.values[i] = 1.0
        ours.merge()
        arm = chains.load(arms[name], "float32", "cpu")[0]
        torch.testing.assert_close(logits_of(model), logits_of(arm), rtol=1e-4, atol=1e-4)
        for block, parameter in arm.named_parameters():
            found = model.get_parameter(block)
            if block in ours._layers:  # its adapters stay beside it
                found = ours.sum(block, torch.empty_like(parameter))
            torch.testing.assert_close(found, parameter, rtol=1e-6, atol=2e-7)


def test_permuting_vectors_permutes_coefficients(made: Any) -> None:
    chain, arms = made["mixed"]
    found = []
    for names in (list(arms), list(arms)[::-1]):
        model, ours = composed(chain, {name: arms[name] for name in names})
        with torch.no_grad():
            ours.values.copy_(torch.stack([torch.full_like(ours.values[0], 0.1 * len(name)) for name in names]))
        ours.merge()
        loss_of(model, model(IDS, use_cache=False).logits).backward()
        found.append({name: ours.values.grad[i] for i, name in enumerate(names)})
    for name in arms:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-6)


def test_equal_parts_are_the_whole(made: Any) -> None:
    one, ones = composed(*made["mixed"])
    five, fives = composed(*made["mixed"], parts=5)
    fill(ones)
    with torch.no_grad():
        fives.values.copy_(ones.values.expand(-1, -1, 5))
    ones.merge()
    fives.merge()
    for block in ones.blocks:
        whole, of_parts = (ours.sum(block, torch.empty_like(one.get_parameter(block))) for ours in (ones, fives))
        torch.testing.assert_close(whole, of_parts, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits_of(one), logits_of(five), rtol=1e-4, atol=1e-4)


def test_parts_are_drawn_by_name_and_alike() -> None:
    drawn = partition(0, "a", 0, 600_000, 7)
    assert torch.equal(drawn[CHUNK:], partition(0, "a", CHUNK, 600_000 - CHUNK, 7))
    assert not torch.equal(drawn, partition(0, "b", 0, 600_000, 7)) and not torch.equal(
        drawn, partition(1, "a", 0, 600_000, 7)
    )
    counts = torch.bincount(drawn)
    assert len(counts) == 7 and counts.min() > 84_000 and counts.max() < 87_500


def test_place() -> None:
    assert place("model.layers.12.mlp.up_proj.weight") == (12, "mlp.up_proj.weight")
    assert place("model.norm.weight") == (None, "norm.weight")


def test_parameters_that_are_not_merged_need_no_gradient(made: Any) -> None:
    """Where parts of a block have coefficients, its adapters are merged; else they stay beside it, also beside a weight
    into which other vectors are merged."""
    for kind, parts, blocks, merged, layers in (("lora", 1, 7, 0, 7), ("lora", 2, 7, 7, 0), ("mixed", 1, 20, 20, 7)):
        model, ours = composed(*made[kind], parts=parts)
        assert len(ours.blocks) == blocks and len(ours._layers) == layers
        assert sum(p.requires_grad for p in model.parameters()) == merged


def test_a_tied_output_layer_has_its_adapter_merged(tmp_path: Path) -> None:
    """Its weight is the embedding too, whose rows the adapter must change."""
    root = pico_arms.root(tmp_path / "pico")
    chain = pico_arms.lora(root, tmp_path / "low", 3, also=["lm_head.weight"])
    model, ours = composed([root], {"low": chain})
    assert list(ours.parameters) == ["model.embed_tokens.weight"] and len(ours.blocks) == 8
    fill(ours)
    ours.merge()
    loss = loss_of(model, model(IDS, use_cache=False).logits)
    loss.backward()
    expected, gradient = by_autograd([root], ours)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(ours.values.grad, gradient, rtol=1e-4, atol=1e-6)


def test_what_is_not_chosen_or_beyond_the_bounds_has_no_gradient(made: Any, stacking: str) -> None:
    for kind in ("lora", "mixed"):
        model, ours = composed(*made[kind], bounds=(0.0, 1.0))
        with torch.no_grad():
            ours.values[0], ours.values[1] = 0.5, 1.5
        ours.chosen[0, :3] = False
        ours.merge()
        loss_of(model, model(IDS, use_cache=False).logits).backward()
        gradient = ours.values.grad
        assert gradient is not None and not gradient[0, :3].any() and not gradient[1].any() and gradient[0, 3:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_weights_have_fp32s_gradient(made: Any, kind: str, stacking: str) -> None:
    """Nearly: activations in bf16 alone turn the gradient of so small a model by two to four hundredths."""
    chain, arms = made[kind]
    found = {}
    for dtype in ("bfloat16", "float32"):
        model, _ = chains.load(chain, dtype, "cpu")
        ours = Composition(model, Pool(chain, arms))
        with torch.no_grad():
            ours.values.fill_(0.4)
        ours.merge()
        loss = loss_of(model, model(IDS, use_cache=False).logits.float())
        loss.backward()
        assert ours.values.grad is not None and ours.values.grad.dtype == torch.float32
        found[dtype] = float(loss.detach()), ours.values.grad
    (loss, gradient), (expected, exact) = found.values()
    assert loss == pytest.approx(expected, rel=1e-2)
    assert float(torch.nn.functional.cosine_similarity(gradient.flatten(), exact.flatten(), 0)) > 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_saved_weights_are_the_merged_ones(made: Any, tmp_path: Path, kind: str) -> None:
    model, ours = composed(*made[kind])
    fill(ours)
    ours.merge()
    ours.save(tmp_path)
    again = chains._from_folder(tmp_path / "weights", made[kind][0][0].parent, "float32", "cpu", 1)
    assert ours.parameters or kind == "lora"
    for name, parameter in ours.parameters.items():
        assert name in ours._layers or torch.equal(parameter, again.get_parameter(name)), name
    torch.testing.assert_close(logits_of(model), logits_of(again), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("parts", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_hold_the_parts_of_a_whole(made: Any, kind: str, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ranks write beside each other is the sum of each block, and their inner products add up to the gradient.
    Seven ranks divide no block equally, and some hold nothing of a small one."""
    monkeypatch.setattr("imprint.composition.vectors.CHUNK", 1000)
    chain, arms = made[kind]
    pool = Pool(chain, arms)
    whole = Composition(None, pool, parts=parts, seed=7)
    of_ranks = [Composition(None, pool, parts=parts, seed=7, ranks=Ranks(place, 7)) for place in range(7)]
    for ours in (whole, *of_ranks):
        fill(ours)
    draw = torch.Generator().manual_seed(1)
    for block in whole.blocks:
        gradient = torch.randn(pool.blocks.shapes[block], generator=draw)
        rows = [ranks.rows(len(gradient)) for ranks in map(Ranks, range(7), [7] * 7)]
        whole._add(block, gradient)
        for ours, held in zip(of_ranks, rows, strict=True):
            ours._add(block, gradient[held])
        sums = [
            ours.sum(block, torch.empty_like(gradient[held]), ours._parts[block])
            for ours, held in zip(of_ranks, rows, strict=True)
        ]
        torch.testing.assert_close(torch.cat(sums), whole.sum(block, torch.empty_like(gradient)), rtol=0, atol=1e-6)
    together = torch.stack([ours.values.grad for ours in of_ranks]).sum(0)
    torch.testing.assert_close(together, whole.values.grad, rtol=1e-4, atol=1e-6)


def test_random_vectors_are_drawn_by_position(made: Any) -> None:
    chain, arms = made["tied"]
    for matched in (False, True):
        (vector, *_) = Pool(chain, arms, random=Random(3, matched)).vectors
        block = "model.layers.0.mlp.up_proj.weight"
        found = [
            piece_of.clone() for piece_of in map(vector.difference, pieces(block, vector.base, CPU, slice(70, 333)))
        ]
        assert torch.equal(torch.cat(found), vector.delta(block).view(-1)[70:333])


# The fit


def job(arms: Any, out: Path, method: str = "atlas", dataset: Any = None, seed: int = 0, **settings: Any) -> Fit:
    chain, vectors = arms
    defaults = {
        "vectors": list(vectors),
        "data": "d",
        "batch_size": 4,
        "max_length": 512,
        "steps": 8,
        "rows_at_once": 2,
    }
    datasets = {"d": dialogues() if dataset is None else dataset, "other": dialogues(7)[3:]}
    given = {**defaults, **settings}
    return fitting.job(method, chain, out, arm="composed", seed=seed, datasets=datasets, arms=vectors, **given)


def test_a_fit_learns_and_its_weights_load(made: Any, tmp_path: Path) -> None:
    fit = job(made["tied"], tmp_path / "a")
    metrics = atlas.fit(fit)
    assert plugins.load("methods", "atlas").makes(fit.settings) == "full"
    assert metrics["final_loss"] < metrics["first_loss"]
    assert metrics["steps"] == 8 and metrics["rows"] == 10 and metrics["coefficients"] == 2 * 20
    template = read_json(fit.manifests[0])["template_sha256"]
    write_json(fit.out / "manifest.json", {"kind": "full", "fingerprint": "1", "template_sha256": template})
    pico.sums(fit.out / "manifest.json")
    model, _ = chains.load([*fit.manifests, fit.out / "manifest.json"], "float32", "cpu")
    rows = table(fit, "coefficients")
    assert len(rows) == 40 and {row["vector"] for row in rows} == {"a", "b"}
    # The weights are the table's sum.
    _, ours = composed(*made["tied"])
    with torch.no_grad():
        for row in rows:
            ours.values[["a", "b"].index(row["vector"]), ours.group[row["block"]], row["part"]] = row["value"]
    for name, parameter in model.named_parameters():
        assert torch.equal(ours.sum(name, torch.empty(parameter.shape)), parameter)
    assert {row["quantity"] for row in table(fit, "curves")} == {"loss", "learning_rate", "grad_norm", "tokens"}
    again = job(made["tied"], tmp_path / "b")
    assert atlas.fit(again) == metrics and weights(again) == weights(fit)


def test_the_first_loss_is_the_starts_mean_cross_entropy(made: Any, tmp_path: Path) -> None:
    chain, _ = made["mixed"]
    fit = job(made["mixed"], tmp_path, batch_size=10)
    model, tokenizer = chains.load(chain, "float32", "cpu")
    batch = collate([row._asdict() for row in examples(fit, tokenizer, "d")])
    with torch.no_grad():
        total = cross_entropy(model, model.get_output_embeddings(), batch["input_ids"], batch["labels"])
    expected = float(total / (batch["labels"][:, 1:] != -100).sum())
    assert atlas.fit(fit)["first_loss"] == pytest.approx(expected, rel=1e-5)


def test_rows_at_once_change_nothing(made: Any, tmp_path: Path) -> None:
    one, four = (atlas.fit(job(made["tied"], tmp_path / str(n), rows_at_once=n)) for n in (1, 4))
    assert one["final_loss"] == pytest.approx(four["final_loss"], rel=1e-4)


def test_several_datasets_are_summed(made: Any, tmp_path: Path) -> None:
    summed = job(made["tied"], tmp_path / "both", data=["d", "other"], steps=2)
    both = atlas.fit(summed)
    one = atlas.fit(job(made["tied"], tmp_path / "one", steps=2))
    two = atlas.fit(job(made["tied"], tmp_path / "two", data="other", steps=2))
    assert both["first_loss"] == pytest.approx(one["first_loss"] + two["first_loss"])
    assert {"d", "other"} <= {row["quantity"] for row in table(summed, "curves")}
    assert atlas.inputs(atlas.Settings(vectors=["a"], data=["d", "other"])).datasets == ("d", "other")


@pytest.mark.parametrize("select", ["random", "gradient", "gradient_block"])
def test_a_budget_keeps_so_many(made: Any, tmp_path: Path, select: str) -> None:
    chain, arms = made["mixed"]
    fit = job((chain, arms), tmp_path, budget=1, select=select, steps=2)
    atlas.fit(fit)
    rows = table(fit, "coefficients")
    used = {row["vector"] for row in rows if row["value"] != 0}
    by_block: dict[str, set[str]] = {}
    for row in rows:
        if row["value"] != 0:
            by_block.setdefault(row["block"], set()).add(row["vector"])
    assert max(map(len, by_block.values())) == 1
    assert len(used) == 1 if select != "gradient_block" else used <= set(arms)
    if select == "gradient_block":
        _, ours = composed(chain, arms)
        assert len(by_block) == len(ours.blocks)


def test_partitions_and_random_vectors_fit(made: Any, tmp_path: Path) -> None:
    found = atlas.fit(job(made["tied"], tmp_path / "parts", partitions=3, granularity="kind"))
    assert found["coefficients"] == 2 * 11 * 3 and found["final_loss"] < found["first_loss"]
    control = atlas_random.fit(job(made["tied"], tmp_path / "random", "atlas_random"))
    assert control["final_loss"] != atlas.fit(job(made["tied"], tmp_path / "plain"))["final_loss"]


def test_a_lost_loss_is_named(made: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ImprintError, match=r"arm 'composed': the (loss|grad_norm) is (nan|inf).* of 8; write a smaller"
    ):
        atlas.fit(job(made["tied"], tmp_path, learning_rate=1e30))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vectors": []}, "at least 1 item"),
        ({"vectors": ["a", "a"]}, "each may stand once"),
        ({"vectors": ["a"], "budget": 2}, "found budget 2 for 1 vectors"),
        ({"vectors": ["a"], "granularity": "row"}, "'tensor', 'layer', 'kind' or 'vector'"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        atlas.Settings(data="d", **settings)


def test_a_killed_fit_goes_on_to_the_same_bits(made: Any, tmp_path: Path) -> None:
    settings = {"steps": 15, "checkpoint_steps": 3}
    whole, killed = (job(made["tied"], tmp_path / name, **settings) for name in ("whole", "killed"))
    expected = atlas.fit(whole)
    fitting.kill("atlas", killed, ("imprint.composition.learning", "backward"), 6)
    assert atlas.fit(killed) == expected
    assert weights(killed) == weights(whole)
    for name in ("curves", "coefficients"):
        assert table(whole, name) == table(killed, name)


def test_other_roots_stop_the_fit(made: Any, tmp_path: Path) -> None:
    chain, _ = made["tied"]
    with pytest.raises(ImprintError, match=re.escape("task vector 'c' belongs to another root model")):
        atlas.fit(job((chain, made["untied"][1]), tmp_path))


def test_seeds_change_the_order(made: Any, tmp_path: Path) -> None:
    one, two = (job(made["tied"], tmp_path / str(seed), seed=seed) for seed in (0, 1))
    atlas.fit(one)
    atlas.fit(two)
    assert weights(one) != weights(two)
