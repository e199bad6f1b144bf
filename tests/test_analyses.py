"""Analyses of arms' weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pico_arms
from imprint.analyses import Analysis, _job, vector_similarity
from imprint.composition.vectors import Pool
from imprint.config import loading
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_arms.root(tmp_path_factory.mktemp("root"))


def similarity(tmp_path: Path, *seeds: dict[str, list[Path]]) -> list[dict]:
    """The rows of `vector_similarity` over arms, as the job writes them."""
    inputs = [
        (seed, Named(arms={name: [str(path) for path in chain] for name, chain in arms.items()}))
        for seed, arms in enumerate(seeds)
    ]
    settings = {"vectors": list(seeds[0])}
    spec = _job.Spec(analysis="parents", plugin="vector_similarity", settings=settings, inputs=inputs, limit=None)
    _job.run(spec, [], [], tmp_path / "parents.parquet")
    return parquet.read(tmp_path / "parents.parquet", "analyses").to_pylist()


def values(rows: list[dict], quantity: str) -> dict[tuple, float]:
    return {(r["arm"], r["other"], r["layer"], r["kind"]): r["value"] for r in rows if r["quantity"] == quantity}


@pytest.mark.parametrize("made", ["full and full", "full and lora", "lora and lora"])
def test_similarities_are_those_of_the_multiplied_out_vectors(
    root: Path, tmp_path: Path, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imprint.composition.vectors.CHUNK", 100)
    kinds = made.split(" and ")
    arms = {f"arm_{i}": getattr(pico_arms, kind)(root, tmp_path / str(i), i) for i, kind in enumerate(kinds)}
    rows = similarity(tmp_path, arms)
    pool = Pool([root], arms)
    one, two = (torch.cat([v.delta(b).view(-1) for b in pool.blocks.shapes]).double() for v in pool.vectors)
    norms, cosines, signs = (values(rows, quantity) for quantity in ("norm", "cosine", "sign_agreement"))
    assert norms["arm_0", None, None, "all"] == pytest.approx(float(one.norm()), rel=1e-5)
    whole = ("arm_0", "arm_1", None, "all")
    assert cosines[whole] == pytest.approx(float(one @ two / one.norm() / two.norm()), abs=1e-6)
    both = (one != 0) & (two != 0)
    assert signs[whole] == pytest.approx(float((one.sign() == two.sign())[both].double().mean()))
    block = "model.layers.0.self_attn.q_proj.weight"
    a, b = (v.delta(block).view(-1).double() for v in pool.vectors)
    place = ("arm_0", "arm_1", 0, "self_attn.q_proj.weight")
    assert cosines[place] == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-6)
    touched = [b for b in pool.blocks.shapes if all(v.touches(b) for v in pool.vectors)]
    assert len(cosines) == len(touched) + 1  # what only one of them touches has no cosine
    assert {r["null"] for r in rows if r["quantity"] == "cosine"} == {0.0}


def test_a_vector_is_like_itself_and_unlike_its_opposite(root: Path, tmp_path: Path) -> None:
    def moved(sign: int) -> pico_arms.Change:
        return lambda name, tensor: (
            tensor
            + sign * 2.0**-7 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name))).sign()
        )

    arms = {
        name: pico_arms.full(root, tmp_path / name, change=moved(sign))
        for name, sign in (("ahead", 1), ("again", 1), ("back", -1))
    }
    rows = similarity(tmp_path, arms, arms)
    cosines, signs = values(rows, "cosine"), values(rows, "sign_agreement")
    for quantity, opposite in ((cosines, -1), (signs, 0)):
        assert quantity["ahead", "again", None, "all"] == pytest.approx(1, abs=1e-5)
        assert quantity["ahead", "back", None, "all"] == pytest.approx(opposite, abs=1e-5)
    assert {row["seed"] for row in rows} == {0, 1}


def test_an_arm_that_was_not_fitted_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="task vector 'base' is zero"):
        similarity(tmp_path, {"a": pico_arms.full(root, tmp_path / "a"), "base": [root]})


def test_each_seed_gets_its_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of all seeds come in one list; datasets are the same at each seed."""
    seen: list[Analysis] = []
    monkeypatch.setattr(vector_similarity, "rows", lambda job: seen.append(job) or iter(()))
    path = tmp_path / "d.parquet"
    dataset_rows.write(path, "d", [{"messages": [{"role": "user", "content": "?"}]}], "0")
    named = Named(datasets=["d"], runs=[("a", "general"), ("b", "general")])
    spec = _job.Spec(
        analysis="both",
        plugin="vector_similarity",
        settings={"vectors": ["a", "b"]},
        inputs=[(3, named), (4, named)],
        limit=None,
    )
    _job.run(spec, [path], [Path("a3"), Path("b3"), Path("a4"), Path("b4")], tmp_path / "out.parquet")
    assert [(job.seed, list(job.inputs.runs.values())) for job in seen] == [
        (3, [Path("a3"), Path("b3")]),
        (4, [Path("a4"), Path("b4")]),
    ]
    assert all(job.inputs.runs.keys() == set(named.runs) and len(job.inputs.datasets["d"]) == 1 for job in seen)
    assert parquet.read(tmp_path / "out.parquet", "analyses").num_rows == 0


def test_unknown_arms_and_modules_are_named() -> None:
    raw = {"models": {"m1": {"wheel": "x==1", "sha256": "0" * 64}}, "arms": {"base": {"model": "m1"}}}
    with pytest.raises(ImprintError, match=r"analyses\.parents: no arm named 'bse'; did you mean 'base'"):
        loading.parse({**raw, "analyses": {"parents": {"vector_similarity": ["base", "bse"]}}})
    with pytest.raises(ImprintError, match="no analyses plug-in named 'similarity'"):
        loading.parse({**raw, "analyses": {"parents": "similarity"}})
