"""config/paper/ppe.yaml at work: its data pass the check for leaks, and its recipe runs under all five prompts. A pico
model takes the place of the 7B one, and every amount is small; prompts, rewards, loss and updates are the config's own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

import pico
import workflow
from conftest import make_project
from imprint.contexts import prior_prompt
from imprint.runtime import parquet

ROOT = Path(__file__).parent.parent
STYLES = ("think", "plan", "code", "knowledge", "examples")
FITTED = (*(f"ppe_{style}" for style in STYLES), "no_prior", "ppe_think_accuracy")

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif("IMPRINT_DATA_MIRROR" not in os.environ, reason="IMPRINT_DATA_MIRROR is not set"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose config is the paper's, without the gated data and without the judge."""
    folder = make_project(tmp_path_factory.mktemp("ppe") / "project")
    pico.make(folder / "resources/local/pico")
    config = yaml.safe_load((ROOT / "config/paper/ppe.yaml").read_text(encoding="utf-8"))
    config["models"] = {"qwen": {"path": "resources/local/pico"}}
    config["engine"] = {"dtype": "float32", "batch_size": 4}
    for part, name in (("arms", "judge"), ("datasets", "gpqa"), ("evals", "gpqa")):
        del config[part][name]
    for ev in config["evals"].values():
        ev |= {"max_new_tokens": 24}
        ev.pop("describe", None)
        ev.pop("judge", None)
    for name in FITTED:
        small = {"steps": 2, "prompts_per_step": 2, "group_size": 4, "completion_tokens": 24, "micro_batch_size": 2}
        config["arms"][name]["fit"] |= small
        del config["arms"][name]["resources"]  # of a node with eight GPUs
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return folder


def rows(path: Path, schema: str) -> list[dict[str, Any]]:
    """The rows of a table."""
    listed: list[dict[str, Any]] = parquet.read(path, schema).to_pylist()
    return listed


def test_the_training_rows_share_nothing_with_the_evals(project: Path) -> None:
    tables = project / "results/paper/ppe"
    workflow.run(project, "results/paper/ppe/tables/contamination.parquet")
    pairs = rows(tables / "tables/contamination.parquet", "contamination")
    assert {pair["dataset"] for pair in pairs} == {"problems"} and {pair["arm"] for pair in pairs} >= set(FITTED)
    assert all(pair["n_shared"] == pair["n_near"] == 0 for pair in pairs)
    attempts = rows(tables / "datasets/problems.attempts.parquet", "synthesis")
    left_out = [row["reason"] for row in attempts if not row["kept"]]
    print(f"{len(attempts)} problems, {len(left_out)} left out: { {r: left_out.count(r) for r in set(left_out)} }")
    assert len(attempts) == 8449 and len(left_out) >= 29
    assert {pair["n_train"] for pair in pairs} == {len(attempts) - len(left_out)}


@pytest.mark.slow
def test_the_recipe_runs_under_every_prompt(project: Path) -> None:
    results = "results/paper/ppe/limit4"
    targets = [f"{results}/arms/{arm}/seed0/manifest.json" for arm in FITTED]
    targets += [f"{results}/scores/{arm}/seed0/humaneval.parquet" for arm in FITTED[:5]]
    workflow.run(project, *targets, "--config", "limit=4")
    for arm in FITTED:
        folder = project / results / f"arms/{arm}/seed0"
        drawn = rows(folder / "rollouts.parquet", "rollouts")
        assert [row["step"] for row in drawn] == [1] * 8 + [2] * 8
        text = ""
        if arm != "no_prior":
            style = arm.removeprefix("ppe_").removesuffix("_accuracy")
            text = prior_prompt.prompt(prior_prompt.Settings(style=style, boxed=True)) + "\n\n"
        assert all(f"User: {text}" in row["prompt"] for row in drawn)
        terms = {"math"} if arm in ("no_prior", "ppe_think_accuracy") else {"math", "format"}
        assert {name for row in drawn for name, _ in row["rewards"]} == terms
        curves = rows(folder / "curves.parquet", "curves")
        quantities = ("reward", "reward_std", "loss", "grad_norm", "kl", "clipped_share", "length")
        values = {name: [row["value"] for row in curves if row["quantity"] == name] for name in quantities}
        assert all(len(listed) == 2 for listed in values.values())
        print(arm, values)
    for arm in FITTED[:5]:
        scored = rows(project / results / f"scores/{arm}/seed0/humaneval.parquet", "scores")
        passed = [row["value"] for row in scored if row["metric"] == "passed"]
        assert passed == [0.0] * 4
