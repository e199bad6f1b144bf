"""Roles in a model's activations: what is recorded of a policy, and what the axis of levels finds and does not find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

import pico_arms
from imprint.analyses import _probe, role_geometry
from imprint.config import loading
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.dag.jobs.results import OfAnalysis
from imprint.datasets import granularity_axis
from imprint.policies import policy
from imprint.policies.recording import of_policy
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named

LEVELS = np.repeat(np.arange(1, 6), 6)


def settings(**keys: Any) -> role_geometry.Settings:
    return role_geometry.Settings.model_validate({"arm": "a", "roles": "roles", "layer": 0, "splits": 60, **keys})


def measured(vectors: Any, **keys: Any) -> dict[str, tuple[float, float | None]]:
    """Quantity -> value and null of the first layer."""
    found = role_geometry._measured(np.asarray(vectors, dtype=float)[None], LEVELS, settings(**keys), 0)
    return {
        name: (float(values[0]), None if nulls is None else float(nulls[0]))
        for name, (values, nulls) in found.quantities.items()
    }


# What the axis finds


def test_levels_that_lie_on_a_line_are_found_and_beat_permuted_ones() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(30, 40)) * 0.3
    vectors[:, 3] += LEVELS
    found = measured(vectors)
    value, null = found["spearman"]
    assert value > 0.9 and null is not None and found["spearman_permuted_95"][0] > null
    assert found["cosine_pc1"][0] > 0.9 and 0 < found["pc1_share"][0] < 1
    without, _ = found["spearman_without_pc1"]
    assert without < value - 0.2


def test_roles_are_held_out_so_that_noise_has_no_order() -> None:
    """In 400 dimensions, an axis separates any 30 points that it was made of."""
    vectors = np.random.default_rng(1).normal(size=(30, 400))
    axis, _ = role_geometry._axis(vectors[None], LEVELS, settings())
    assert role_geometry._spearman(role_geometry._projected(vectors[None], axis), LEVELS)[0] > 0.8
    value, null = measured(vectors)["spearman"]
    assert abs(value) < 0.3 and null is not None and null < 0.35


def test_one_direction_that_holds_the_variance_lets_permuted_levels_order_the_roles() -> None:
    """The caution of the null: with such a PC1, a correlation far from 0 says little."""
    draw = np.random.default_rng(2)
    vectors = draw.normal(size=(30, 40)) * 0.01
    vectors[:, 0] += LEVELS
    null = measured(vectors)["spearman"][1]
    assert null is not None and null > 0.9
    isotropic = LEVELS[:, None] * np.eye(40)[0] * 0.2 + draw.normal(size=(30, 40))
    weaker = measured(isotropic)["spearman"][1]
    assert weaker is not None and weaker < 0.5


def test_quantities_do_not_depend_on_origin_scale_or_rotation() -> None:
    draw = np.random.default_rng(3)
    vectors = draw.normal(size=(30, 12)) + 0.3 * LEVELS[:, None] * draw.normal(size=12)
    rotation, _ = np.linalg.qr(draw.normal(size=(12, 12)))
    one, other = measured(vectors), measured(5 + 7 * vectors @ rotation)
    for name, (value, null) in one.items():
        assert other[name] == pytest.approx((value, null), abs=1e-9), name


def test_projections_are_in_units_of_the_distance_of_low_and_high_levels() -> None:
    vectors = np.zeros((1, 30, 4))
    vectors[0, :, 1] = 10 + 3 * LEVELS
    found = role_geometry._measured(vectors, LEVELS, settings(), 0)
    # The low levels have the mean 1.5 and the high ones 4.5, three levels apart.
    assert found.projections[0] == pytest.approx((LEVELS - 1.5) / 3)
    assert found.quantities["cosine_pc1"][0] == pytest.approx(1) and found.quantities["pc1_share"][0] == pytest.approx(
        1
    )


def test_vectors_that_are_all_alike_have_no_order() -> None:
    assert {value for value, _ in measured(np.ones((30, 5))).values()} == {0.0}


@given(st.lists(st.integers(-3, 3), min_size=30, max_size=30))
def test_correlations_are_scipys(values: list[int]) -> None:
    found = role_geometry._spearman(np.array([values], dtype=float), LEVELS)[0]
    expected = spearmanr(values, LEVELS).statistic if len(set(values)) > 1 else 0.0
    assert found == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_halves_share_no_role_and_hold_every_level(seed: int) -> None:
    levels = np.repeat([1, 2, 4], [2, 5, 3])
    fit, test = role_geometry._halves(levels, np.random.default_rng(seed))
    assert sorted([*fit, *test]) == list(range(10))
    assert set(levels[fit]) == set(levels[test]) == {1, 2, 4}


# The data


def files(folder: Path, entities: Any, questions: list[Any]) -> dict[str, Path]:
    (folder / "entities.json").write_text(json.dumps({"entities": entities}), encoding="utf-8")
    lines = "".join(json.dumps({"question": question, "id": 0}) + "\n" for question in questions)
    (folder / "extraction_questions.jsonl").write_text(lines, encoding="utf-8")
    return {name: folder / name for name in ("entities.json", "extraction_questions.jsonl")}


def role(name: str, level: int) -> dict[str, Any]:
    return {"name": name, "description": f"The {name}.", "level": level, "level_name": f"L{level}"}


def test_each_question_is_put_to_all_roles_in_each_wording(tmp_path: Path) -> None:
    paths = files(
        tmp_path, [role("a", 1), role("b", 1), role("c", 2), role("{level_name}", 2)], ["Why?", "How?", "No?"]
    )
    of = granularity_axis.Settings(questions=2, wordings=["play", "name"])
    rows = list(granularity_axis.rows(of, paths))
    assert [row["fields"]["role"] for row in rows] == ["a", "b", "c", "{level_name}"] * 4
    assert rows[0]["messages"][0]["content"].startswith("Please role-play as a: The a. Stay fully in character")
    assert rows[7]["messages"][0]["content"] == "You are {level_name}.", "what a file says is no format"
    assert [row["messages"][1]["content"] for row in rows] == ["Why?"] * 8 + ["How?"] * 8
    assert rows[0]["strata"] == {"level": "1"} and rows[0]["cluster"] == "a"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["name", "description", "level", "level_name"]), inner)
        ),
        max_leaves=12,
    )
)
def test_a_file_gives_rows_or_says_what_is_wrong(tmp_path_factory: pytest.TempPathFactory, entities: Any) -> None:
    paths = files(tmp_path_factory.mktemp("roles"), entities, ["Why?"])
    try:
        rows = list(granularity_axis.rows(granularity_axis.Settings(), paths))
    except ImprintError as error:
        assert "entities.json" in str(error)
    else:
        assert all(row["fields"]["role"] for row in rows)


def test_a_question_that_is_no_text_is_named(tmp_path: Path) -> None:
    paths = files(tmp_path, [role("a", 1)], ["Why?", ""])
    with pytest.raises(ImprintError, match=r"jsonl, line 2: found .* write a text for question"):
        list(granularity_axis.rows(granularity_axis.Settings(), paths))


# The job


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_arms.root(tmp_path_factory.mktemp("root"))


ROLES = [role(f"role {level} {place}", level) for level in range(1, 6) for place in range(3)]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    paths = files(folder, ROLES, ["Why?", "How?"])
    return list(granularity_axis.rows(granularity_axis.Settings(), paths))


def probe(
    folder: Path, chains: list[list[Path]], rows: list[dict[str, Any]], limit: int | None = None, **keys: Any
) -> list[dict[str, Any]]:
    """The rows that the job writes, with a chain for each seed."""
    dataset_rows.write(folder / "roles.parquet", "roles", rows, "0")
    hooks = keys.pop("hooks", [])
    spec = _probe.Spec(
        analysis="geometry",
        plugin="role_geometry",
        settings=settings(splits=4, **keys).model_dump(mode="json"),
        inputs=[(seed, Named(datasets=["roles"])) for seed in range(len(chains))],
        limit=limit,
        policy=policy.Spec(engine="transformers", dtype="float32", batch_size=4, hooks=hooks),
    )
    _probe.run(
        spec=_probe.Spec.model_validate_json(spec.model_dump_json()),
        datasets=[folder / "roles.parquet"],
        runs=[],
        manifests=[path for chain in chains for path in chain],
        out=folder / "out.parquet",
        threads=1,
        device="cpu",
    )
    return parquet.read(folder / "out.parquet", "analyses").to_pylist()


def test_the_job_writes_every_layer_the_words_and_the_roles_of_one_layer(root: Path, tmp_path: Path) -> None:
    rows = probe(tmp_path, [[root]], rows_of(tmp_path), layer=1)
    correlations = [row for row in rows if row["quantity"] == "spearman"]
    assert [(row["kind"], row["layer"]) for row in correlations] == [
        ("activations", 0),
        ("activations", 1),
        ("words", None),
    ]
    assert all(row["null"] is not None and abs(row["value"]) <= 1 for row in correlations)
    roles = [row for row in rows if row["quantity"] == "projection"]
    assert {(row["other"], row["kind"]) for row in roles} == {(each["name"], str(each["level"])) for each in ROLES}
    assert {row["layer"] for row in roles} == {1}
    assert rows == probe(tmp_path, [[root]], rows_of(tmp_path), layer=1), "a repeated job writes the same"


def test_each_seed_reads_its_own_weights_and_the_hooks_of_the_arm_count(root: Path, tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    chains = [pico_arms.full(root, tmp_path / str(seed), seed) for seed in (1, 2)]
    both = probe(tmp_path, chains, rows)
    for seed, chain in enumerate(chains):
        alone = probe(tmp_path, [chain], rows)
        ours = [row["value"] for row in both if row["seed"] == seed and row["quantity"] == "pc1_share"]
        assert ours == [row["value"] for row in alone if row["quantity"] == "pc1_share"]
    hook = Plug(name="constant", settings={"add": 3.0, "layer": 0})
    plain, moved = (
        of_policy(
            policy.start(policy.Spec(engine="transformers", dtype="float32", batch_size=4, hooks=hooks), [root], "cpu"),
            rows,
            "last_prompt",
        )
        for hooks in ([], [hook])
    )
    assert (moved[:, 0] - plain[:, 0]).flatten().tolist() == pytest.approx([3.0] * moved[:, 0].numel(), abs=1e-4)
    steered = probe(tmp_path, [[root]], rows, hooks=[hook])
    assert [row["value"] for row in steered] != [row["value"] for row in probe(tmp_path, [[root]], rows)]


def test_rows_are_read_under_the_contexts_of_the_arm_and_without_their_answer(root: Path) -> None:
    row = {"example_id": "0", "messages": [{"role": "user", "content": "Why?"}]}
    answered = {**row, "messages": [*row["messages"], {"role": "assistant", "content": "So."}]}
    contexts = [Plug(name="role_play")]
    plain, under = (
        policy.start(policy.Spec(engine="transformers", dtype="float32", batch_size=4, contexts=given), [root], "cpu")
        for given in ([], contexts)
    )
    asked = [of_policy(each, [row], "last_prompt") for each in (plain, under)]
    assert not np.allclose(*asked)
    assert np.allclose(asked[0], of_policy(plain, [answered], "last_prompt"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layer": 2}, "found layer 2, but the model has 2; write one of 0 to 1"),
        ({"high": [7]}, "'roles' has 0 roles of level 7, and an axis and a test of it need two"),
        ({"limit": 6}, "has [01] roles of level .* or a larger limit"),
    ],
)
def test_what_cannot_be_measured_is_named(root: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ImprintError, match=says):
        probe(tmp_path, [[root]], rows_of(tmp_path), **change)


def test_rows_without_levels_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="of 'roles' has no role with a level; write a dataset whose rows have"):
        probe(tmp_path, [[root]], [{"messages": [{"role": "user", "content": "Why?"}]}])
    twice = [*rows_of(tmp_path), *rows_of(tmp_path)]
    twice[-1] = {**twice[-1], "fields": {**twice[-1]["fields"], "level": 1}}
    with pytest.raises(ImprintError, match="the role 'role 5 2' of 'roles' has the levels 5 and 1"):
        probe(tmp_path, [[root]], twice)
    with pytest.raises(ValueError, match="high and low both have the level 4; write different levels"):
        settings(low=[1, 4])


# The config


def raw(**keys: Any) -> dict[str, Any]:
    return {
        "seeds": [3, 4],
        "models": {"m1": {"hub": "a/b", "revision": "0" * 40}},
        "datasets": {"dialogues": {"bundled": "dialogues.jsonl"}, "roles": {"catalog": "granularity_axis"}},
        "arms": {
            "base": {"model": "m1"},
            "steering": {
                "parent": "base",
                "fit": {
                    "method": "direction", "toward": {"dialogues": "role_play"}, "away": {"dialogues": "plain"},
                    "layer": 0, "rows": 4,
                },
            },
            "steered": {"parent": "base", "apply": {"hooks": {"direction": "steering"}}},
        },
        "analyses": {"geometry": {"role_geometry": {"arm": "base", "roles": "roles", "layer": 0}}},
        **keys,
    }  # fmt: skip


def of_arm(arm: str) -> dict[str, Any]:
    return {"analyses": {"geometry": {"role_geometry": {"arm": arm, "roles": "roles", "layer": 0}}}}


def test_an_analysis_that_asks_an_arm_reads_what_the_arm_reads() -> None:
    config = loading.parse(raw(**of_arm("steered")))
    stages = all_jobs(Experiment(config))
    probes, job = stages["probe"], OfAnalysis("geometry")
    assert list(probes.jobs()) == [job] and not list(stages["analyze"].jobs()) and probes.arm(job) == "steered"
    inputs, spec = probes.inputs(job), probes.spec(job)
    model = "resources/models/m1-"
    assert all(path.startswith(model) for path in inputs["manifests"]) and len(inputs["manifests"]) == 2
    fits = [f"results/arms/steering/seed{seed}/manifest.json" for seed in (3, 4)]
    assert [path for path in inputs["arms"] if not path.startswith(model)] == fits
    assert [seed for seed, _ in spec.inputs] == [3, 4]
    assert [named.arms["steering"][-1] for _, named in spec.inputs] == fits
    assert [plug.name for plug in spec.policy.hooks] == ["direction"]
    kinds = {("hooks", "direction"), ("engines", "transformers"), ("artifacts", "hooks"), ("analyses", "role_geometry")}
    assert kinds <= set(probes.plugins(job))
    (costed,) = [each for each in stages["collect"].spec(()).jobs if each.stage == "probe"]
    assert (costed.arm, costed.output) == ("steered", "results/analyses/geometry.parquet")
    assert costed.output in stages["collect"].inputs(())["analyses"]


def test_an_arm_that_no_seed_changes_is_read_once() -> None:
    probes = all_jobs(Experiment(loading.parse(raw())))["probe"]
    assert [seed for seed, _ in probes.spec(OfAnalysis("geometry")).inputs] == [3]


def test_what_an_analysis_cannot_ask_is_named_when_the_config_is_loaded() -> None:
    with pytest.raises(ImprintError, match=r"analyses\.geometry: no arm named 'bse'; did you mean 'base'"):
        loading.parse(raw(**of_arm("bse")))
    with pytest.raises(ImprintError, match=r"analyses\.geometry: the engine 'echo' of model 'm1' has no hooks"):
        loading.parse(
            raw(models={"m1": {"hub": "a/b", "revision": "0" * 40, "engine": "echo"}}, arms={"base": {"model": "m1"}})
        )
