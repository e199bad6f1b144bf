"""Task vectors: what they are, block by block, and every way in which they cannot be made."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import pico
import pico_arms
from imprint.composition.vectors import CHUNK, Pool, Random, RandomVector, pieces
from imprint.models import chains, tensor_files
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_json, write_json

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_arms.root(tmp_path_factory.mktemp("models") / "pico")


def state(manifests: list[Path]) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in chains.load(manifests, "float32", "cpu")[0].named_parameters()}


@pytest.mark.parametrize("kind", ["full", "lora", "lora on full", "lora on lora"])
def test_a_vector_is_what_the_fit_changed(root: Path, tmp_path: Path, kind: str) -> None:
    if kind == "full":
        chain = pico_arms.full(root, tmp_path / "a")
    else:
        below = {"lora": [root], "lora on full": pico_arms.full(root, tmp_path / "a")}.get(kind)
        chain = pico_arms.lora(root, tmp_path / "b", 2, below or pico_arms.lora(root, tmp_path / "c", 3))
    base, arm = state([root]), state(chain)
    pool = Pool([root], {"arm": chain})
    (vector,) = pool.vectors
    assert set(pool.blocks.shapes) == set(base)
    for name in base:
        torch.testing.assert_close(vector.delta(name), arm[name] - base[name], rtol=1e-5, atol=1e-7)
        assert vector.touches(name) or bool((arm[name] == base[name]).all())
    assert vector.dense == ("full" in kind)
    norms = dict(pool.norms(vector))
    assert "lora" in kind or norms[EMBEDDING] == pytest.approx(float((arm[EMBEDDING] - base[EMBEDDING]).norm() ** 2))


def test_vectors_are_always_against_the_root(root: Path, tmp_path: Path) -> None:
    """Two fits on top of one another: the last one's vector holds both changes, wherever the composition starts."""
    first = pico_arms.full(root, tmp_path / "first", 1)
    second = [*first, pico_arms.full(root, tmp_path / "second", 2)[1]]
    (vector,) = Pool(first, {"arm": second}).vectors
    name = "model.norm.weight"
    torch.testing.assert_close(vector.delta(name), state(second)[name] - state([root])[name])


def test_nothing_is_multiplied_out_or_held(root: Path, tmp_path: Path) -> None:
    pool = Pool([root], {"a": pico_arms.full(root, tmp_path / "a"), "b": pico_arms.lora(root, tmp_path / "b")})
    full, low = pool.vectors
    for scale, b, a in low.factors("model.layers.0.mlp.up_proj.weight"):
        assert scale == 2.0 and b.shape == (64, 3) and a.shape == (3, 32)
    assert low.factors("model.layers.1.mlp.up_proj.weight") == [] and not low.dense
    one, two = full.arm.weights.read(EMBEDDING), full.arm.weights.read(EMBEDDING)
    assert one.data_ptr() == two.data_ptr()  # views of the mapped file, not copies


def test_tied_parameters_are_one_block(root: Path, tmp_path: Path) -> None:
    assert "lm_head.weight" not in Pool([root], {"a": pico_arms.full(root, tmp_path / "a")}).blocks.shapes
    other = pico_arms.root(tmp_path / "untied", tied=False)
    pool = Pool([other], {"a": pico_arms.full(other, tmp_path / "b")})
    assert {"lm_head.weight", EMBEDDING} <= set(pool.blocks.shapes)


def test_a_tied_block_may_be_stored_under_its_other_name(root: Path, tmp_path: Path) -> None:
    chain = pico_arms.full(root, tmp_path / "a")
    expected = Pool([root], {"a": chain}).vectors[0].delta(EMBEDDING)
    file = chain[1].parent / "weights" / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors.pop(EMBEDDING)
    from safetensors.torch import save_file

    save_file(tensors, file, metadata={"format": "pt"})
    pico.sums(chain[1])
    assert torch.equal(Pool([root], {"a": chain}).vectors[0].delta(EMBEDDING), expected)


def test_pieces_are_the_whole_block(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imprint.composition.vectors.CHUNK", 100)
    pool = Pool([root], {"a": pico_arms.full(root, tmp_path / "a", 1), "b": pico_arms.full(root, tmp_path / "b", 2)})
    for vector in pool.vectors:
        found = [vector.difference(piece).clone() for piece in pieces(EMBEDDING, pool.root)]
        assert len(found) > 2 and torch.equal(torch.cat(found), vector.delta(EMBEDDING).view(-1))


def test_random_vectors_have_the_roots_moments_and_are_drawn_the_same_anew(root: Path, tmp_path: Path) -> None:
    chain = pico_arms.full(root, tmp_path / "a")
    (one,), (two,), (other,) = (Pool([root], {"a": chain}, random=Random(seed)).vectors for seed in (0, 0, 1))
    assert isinstance(one, RandomVector)
    made, base = one.delta(EMBEDDING), state([root])[EMBEDDING]
    assert torch.equal(made, two.delta(EMBEDDING)) and not torch.equal(made, other.delta(EMBEDDING))
    assert float(made.std()) == pytest.approx(float(base.std()), rel=0.05)
    assert float(made.mean()) == pytest.approx(float(base.mean()), abs=0.01)


def test_random_vectors_may_be_as_long_as_the_vectors(root: Path, tmp_path: Path) -> None:
    arms = {"a": pico_arms.full(root, tmp_path / "a"), "low": pico_arms.lora(root, tmp_path / "low", 3)}
    pool, drawn = Pool([root], arms), Pool([root], arms, random=Random(0, matched=True))
    for vector, random in zip(pool.vectors, drawn.vectors, strict=True):
        assert [random.touches(block) for block in pool.blocks.shapes] == [
            vector.touches(block) for block in pool.blocks.shapes
        ]
        block = "model.layers.0.mlp.up_proj.weight"
        assert float(random.delta(block).norm()) == pytest.approx(float(vector.delta(block).norm()), rel=0.05)
        cosine = torch.nn.functional.cosine_similarity(random.delta(block).view(1, -1), vector.delta(block).view(1, -1))
        assert abs(float(cosine)) < 0.1


def chained(root: Path, folder: Path) -> dict[str, list[Path]]:
    """Arms on top of each other: a full fit, another on it, and adapters on both."""
    first = pico_arms.full(root, folder / "first", 1)
    second = [*first, pico_arms.full(root, folder / "second", 2)[-1]]
    low = pico_arms.lora(root, folder / "low", 3, first)
    high = pico_arms.lora(root, folder / "high", 4, low)
    return {
        "first": first,
        "second": second,
        "low": low,
        "high": high,
        "apart": pico_arms.lora(root, folder / "apart", 5),
    }


@pytest.mark.parametrize(
    ("of", "against", "dense"),
    [
        ("second", "first", True),
        ("first", "second", True),
        ("low", "first", False),
        ("high", "low", False),
        ("low", "high", False),
        ("high", "second", True),
        ("apart", "first", True),
        ("first", "apart", True),
    ],
)
def test_a_vector_against_another_arm_is_the_difference(
    root: Path, tmp_path: Path, of: str, against: str, dense: bool
) -> None:
    arms = chained(root, tmp_path)
    pool = Pool([root], {"v": arms[of]}, {"v": arms[against]})
    (vector,) = pool.vectors
    ours, theirs = state(arms[of]), state(arms[against])
    assert vector.dense == dense
    for block in pool.blocks.shapes:
        expected = ours[block] - theirs[block]
        torch.testing.assert_close(vector.delta(block), expected, rtol=0, atol=2e-6)
        assert vector.touches(block) or not expected.any()
    with pytest.raises(ImprintError, match=r"'v' is zero"):
        Pool([root], {"v": arms[of]}, {"v": arms[of]})


@pytest.mark.parametrize(
    ("name", "change", "parts"),
    [
        ("shape", lambda n, t: t[:, :-1] if n == EMBEDDING else t + 1, ["'bad'", EMBEDDING, "[", "31]", "32]"]),
        ("missing", lambda n, t: None if n == "model.norm.weight" else t + 1, ["'bad'", "has no", "model.norm"]),
        ("nan", lambda n, t: t * torch.nan if "layers.1.mlp.up" in n else t, ["'bad'", "NaN", "layers.1.mlp.up_proj"]),
        ("inf", lambda n, t: t + torch.inf if n == "model.norm.weight" else t, ["'bad'", "Inf", "model.norm.weight"]),
        ("zero", lambda n, t: t, ["'bad'", "is zero", "pico"]),
    ],
)  # fmt: skip
def test_broken_vectors_are_named(root: Path, tmp_path: Path, name: str, change: Any, parts: list[str]) -> None:
    with pytest.raises(ImprintError) as error:
        Pool([root], {"bad": pico_arms.full(root, tmp_path / "bad", change=change)})
    for part in parts:
        assert part in str(error.value)


def test_other_roots_are_named(root: Path, tmp_path: Path) -> None:
    other = pico_arms.root(tmp_path / "other", seed=1)
    chain = pico_arms.full(other, tmp_path / "a")
    with pytest.raises(
        ImprintError, match=rf"the weights in {re.escape(str(other.parent))} and in .*{root.parent.name}"
    ):
        Pool([root], {"a": chain})
    manifest = read_json(other)
    write_json(other, {**manifest, "template_sha256": "0"})
    with pytest.raises(ImprintError, match="the chat template in"):
        Pool([root], {"a": chain})
    write_json(other, manifest)
    file = other.parent / "tokenizer.json"
    file.write_text(file.read_text() + " ")
    with pytest.raises(ImprintError, match="the tokenizer in"):
        Pool([root], {"a": chain})


def test_no_vectors_and_unfitted_arms_are_errors(root: Path) -> None:
    with pytest.raises(ImprintError, match="is empty"):
        Pool([root], {})
    with pytest.raises(ImprintError, match="'base' is zero"):
        Pool([root], {"base": [root]})


def test_adapters_that_are_more_than_lora_are_errors(root: Path, tmp_path: Path) -> None:
    chain = pico_arms.lora(root, tmp_path / "a")
    config = chain[1].parent / "weights" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_dora": True}))
    pico.sums(chain[1])
    with pytest.raises(ImprintError, match=r"'a'.*use_dora"):
        Pool([root], {"a": chain})


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64]),
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, shapes: list, dtype: torch.dtype) -> None:
    folder = tmp_path_factory.mktemp("files")
    made = {f"t{i}": torch.arange(torch.Size(shape).numel()).to(dtype).view(shape) for i, shape in enumerate(shapes)}
    listed = [(name, tuple(tensor.shape), dtype) for name, tensor in made.items()]
    tensor_files.write(folder / "model.safetensors", listed, made.__getitem__)
    read, again = tensor_files.TensorFolder(folder), load_file(folder / "model.safetensors")
    assert read.names == sorted(made)
    for name, tensor in made.items():
        assert torch.equal(read.read(name), tensor) and torch.equal(again[name], tensor)
        assert read.shape(name) == tuple(tensor.shape)
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors"]


def test_a_file_that_is_not_as_announced_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="announced"):
        tensor_files.write(tmp_path / "x.safetensors", [("a", (2,), torch.float32)], lambda _: torch.zeros(3))
    assert list(tmp_path.iterdir()) == []


def test_chunks_fit() -> None:
    from imprint.composition.vectors import GPU_CHUNK

    assert GPU_CHUNK % CHUNK == 0  # a partition is drawn in CHUNKs, on every device
