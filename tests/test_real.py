"""One run of the real embedded model, from the wheel to the report and a question put to an arm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

import workflow
from imprint.contexts import prior_prompt
from imprint.models import model_files

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment of real.yaml, cut to a few rows, steps and arms. The converted model stays in the project's own
    folder, where `make demo` and the next test run find it."""
    from conftest import make_project

    project = make_project(tmp_path_factory.mktemp("real") / "project")
    (ROOT / "resources/models").mkdir(parents=True, exist_ok=True)
    (project / "resources/models").symlink_to(ROOT / "resources/models")
    shutil.copy(ROOT / "tests/real.yaml", project / "config/config.yaml")

    def change(config: dict) -> None:
        config["limit"] = 4
        for name in ("role_play", "self_prompt_shuffled"):
            del config["arms"][name]
        config["datasets"]["roles_by_base"]["n"] = 4
        config["datasets"]["roles_by_base"]["min_yield"] = 0.25
        config["evals"]["constraints_seen"]["max_new_tokens"] = 48
        config["arms"]["ppe_plan"]["fit"] |= {"steps": 1, "completion_tokens": 32}
        for name in ("instruct", "self_prompt"):
            config["arms"][name]["fit"]["epochs"] = 0.125
        config["arms"]["composed"]["fit"]["steps"] = 3

    workflow.edit(project, change)
    workflow.run(project)
    return project


def test_the_tables_are_whole(run: Path) -> None:
    with duckdb.connect(str(run / "results/limit4/imprint.duckdb"), read_only=True) as db:
        rows = db.execute("select arm, eval, metric, n_attempted, n_scored, n_error, mean from summary").fetchall()
        arms = {"base", "instruct", "self_prompt", "ipe_plan", "plan_form", "ppe_plan", "composed"}
        assert {row[0] for row in rows} == arms
        assert all(row[3] == row[4] + row[5] and row[5] == 0 for row in rows)
        losses = db.execute(
            "select value from curves where quantity = 'loss' and arm = 'instruct' order by step"
        ).fetchall()
        assert all(1.0 < value < 6.0 for (value,) in losses), "a pretrained model's loss, not a random one's (10.8)"
        passages = {row[0]: row[6] for row in rows if row[1:3] == ("passages", "nll_per_token")}
        assert all(2.0 < value < 5.0 for value in passages.values())


def test_an_arm_answers(run: Path) -> None:
    out = subprocess.run(
        [sys.executable, "-m", "imprint.ask", "--max-new-tokens", "24", "base", "What is the capital of France?"],
        cwd=run,
        env=workflow.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Paris" in out.stdout


def test_prior_prompts_are_of_like_length(run: Path) -> None:
    (folder,) = (run / "resources/models").glob("smollm2-*")
    tokenizer = model_files.load_tokenizer(folder)
    for boxed in (False, True):
        texts = [prior_prompt.prompt(prior_prompt.Settings(style=s, boxed=boxed)) for s in prior_prompt.CLAUSES]
        lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
        assert len(lengths) == 5 and max(lengths) - min(lengths) <= 10, lengths


@pytest.mark.skipif("IMPRINT_DATA_MIRROR" not in os.environ, reason="IMPRINT_DATA_MIRROR is not set")
def test_the_real_config_plans_and_reads_its_data(run: Path) -> None:
    shutil.copy(ROOT / "config/real.yaml", run / "config/real.yaml")
    target = "results/real/limit4/tables/contamination.parquet"
    workflow.run(run, target, "--configfile", "config/real.yaml", "--config", "limit=4")
    made = {path.stem for path in (run / "results/real/limit4/datasets").glob("*.parquet")}
    assert {"ifeval", "gsm8k", "coat_utility", "coat_context", "coat_ideal", "coat_suboptimal"} <= made


def test_lima_needs_its_licence_and_then_plans(run: Path) -> None:
    """The commented lines of config/real.yaml, taken as they stand."""
    text = (ROOT / "config/real.yaml").read_text()
    with_lima = text.replace("  # lima: {", "  lima: {").replace("  # dialogues: {", "  dialogues: {")
    with_lima = with_lima.replace("  dialogues: {bundled: dialogues.jsonl}\n", "")
    (run / "config/lima.yaml").write_text(with_lima)
    assert "accept_licences: [lima]" in workflow.run(run, "-n", "--configfile", "config/lima.yaml", check=False)
    (run / "config/lima.yaml").write_text(with_lima.replace("# accept_licences", "accept_licences"))
    jobs = workflow.planned(run, "--configfile", "config/lima.yaml")
    assert "synthesize dialogues" in jobs
    assert "train_sft self_prompt 0" in jobs
