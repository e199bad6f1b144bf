"""`make plan`: which jobs would run, and what the questions of a config can find out, from a pilot or from what is
assumed. tests/test_workflow.py has the jobs and reasons of a finished experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import one_fit
from imprint import plan
from imprint.config import loading
from imprint.dag import adoption, spending, to_run
from imprint.dag.experiment import Experiment
from imprint.dag.plan import Stated, announce, planned, variances
from imprint.dag.spending import NOTHING, Spending
from imprint.dag.to_run import ToRun
from imprint.runtime import parquet
from imprint.runtime.stages import STAGES
from imprint.statistics import planning

QUESTION = {"asks": "Does training help at all?", "arm": "tuned", "control": "base", "eval": "general"}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config with a question. Snakemake is not asked which jobs would run."""
    monkeypatch.setattr(to_run, "jobs", lambda *arguments: [])
    raw = {**one_fit(), "results": "results/planned", "seeds": [0, 1, 2], "questions": {"helps": QUESTION}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def pilot(folder: Path, **changes: Any) -> Path:
    """A results folder with the answer to one question, and what its jobs cost."""
    answer = {
        **{"question": "other", "arm": "tuned", "control": "base", "eval": "general", "metric": "accuracy"},
        **{"difference": 0.05, "n_pairs": 100, "n_missing": 0},
        **{"var_examples": 0.08, "var_answers": 0.03, "var_runs": 0.0003, "lending": 1},
        **changes,
    }
    jobs = [
        ("tuned", "train", None, 60.0),
        ("tuned", "generate", "general", 20.0),
        ("base", "generate", "general", 10.0),
    ]
    costs = [
        {"arm": arm, "seed": 0, "stage": stage, "eval": ev, "seconds": seconds, "tokens": 1000, "gpu_seconds": 0.0}
        for arm, stage, ev, seconds in jobs
    ]
    parquet.write(folder / "tables/answers.parquet", "answers", [answer])
    parquet.write(folder / "tables/costs.parquet", "costs", costs)
    return folder


def said(config: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    plan.main(["--configfile", str(config), *words])
    jobs, blank, heading, fit, answers, gap, *questions = capsys.readouterr().out.splitlines()
    assert (jobs, blank, gap) == ("No job has to run: results/planned is up to date.", "", "")
    assert heading.startswith("Memory on a GPU, in GB")
    unknown = "not known before the model is fetched"
    assert [fit, answers] == [f"  fit tuned: {unknown}", f"  answers base, tuned: {unknown}"]
    return questions


def test_without_a_pilot_the_assumption_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(config, capsys=capsys)
    assert lines[:2] == ["helps: Does training help at all?", "  tuned against base on general (accuracy), gain"]
    assert "With 200 examples and 3 seeds, differences from 0." in lines[2]
    assert lines[2].endswith("(assumed: a 0/1 score that differs on a fifth of the examples).")
    assert len(lines) == 3, "there is no difference to plan for, and nothing is known of costs"


def test_a_pilot_gives_variances_and_costs(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(pilot(tmp_path / "pilot"))
    lines = said(config, "--pilot", folder, capsys=capsys)
    assert lines[2].endswith("(pilot: tuned against base).")
    assert lines[3] == "  For 0.05 it takes 579 examples, the other staying as it is."
    # Three seeds: 3 x 60 s of training, 3 x 40 s and 20 s of answers to 200 examples.
    assert "By the pilot's costs: 5 min 20 s, 11,000 tokens as planned;" in lines[4]
    assert said(config, "--pilot", folder, "--difference", "0.4", capsys=capsys)[3] == "  That is enough for 0.4."


TARGET = 0.062


def test_more_of_what_is_needed_is_enough(config: Path, tmp_path: Path) -> None:
    """The number of seeds that the plan names shows the difference, and one fewer does not."""
    folder = pilot(tmp_path / "pilot")
    experiment = Experiment(loading.load([config]))
    (asked,) = planned(experiment, folder / "tables/answers.parquet", {})
    apart, _ = variances(asked, Stated())
    z = planning.critical(1)
    examples, seeds = planning.needs(apart, z, 200, 3, TARGET)
    assert examples is not None and seeds is not None
    assert planning.reach(apart, z, 200, seeds) < TARGET <= planning.reach(apart, z, 200, seeds - 1)
    assert planning.reach(apart, z, examples, 3) < TARGET <= planning.reach(apart, z, examples - 1, 3)


def test_a_pilot_with_one_seed_says_nothing_of_training_runs(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(pilot(tmp_path / "pilot", var_answers=0.0, var_runs=None))
    assert "which had one seed; training runs spread by 0.03" in said(config, "--pilot", folder, capsys=capsys)[2]


def test_a_margin_is_what_retention_must_show(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = yaml.safe_load(config.read_text(encoding="utf-8"))
    raw["questions"]["helps"] |= {"kind": "retention", "margin": 0.3}
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    lines = said(config, capsys=capsys)
    assert "margins from 0." in lines[2]
    assert lines[3] == "  That is enough for 0.3."


def test_a_dry_run_announces_the_questions(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    announce(Experiment(loading.load([config])), {})
    assert capsys.readouterr().err.startswith("helps on general: With 200 examples and 3 seeds, differences from 0.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pilot", "results/nowhere"], "answers.parquet is not there; write the results folder of a finished"),
        (["--configfile", "tests/mini.yaml.missing"], "mini.yaml.missing"),
        (["--config", "limit=0"], "limit: found 0"),
        (["--config", "limit"], "imprint.plan: "),
    ],
)
def test_what_is_missing_is_named(config: Path, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        plan.main(["--configfile", str(config), *words])


def to_generate(arms: int, cost: Spending | None = None) -> list[ToRun]:
    return [
        ToRun("generate", f"generate arm{arm}.seed{seed}.general", f"arm{arm}", "new", cost)
        for arm in range(arms)
        for seed in (0, 1)
    ]


def test_each_job_has_a_line_where_they_fit_on_a_screen() -> None:
    jobs = [*to_generate(2, Spending(60.0)), ToRun("report", "report", "", "its scores change", NOTHING)]
    assert list(to_run.lines(jobs, "results")) == [
        "5 jobs would run in results:",
        "  generate arm0.seed0.general  new  (1 min 0 s)",
        "  generate arm0.seed1.general  new  (1 min 0 s)",
        "  generate arm1.seed0.general  new  (1 min 0 s)",
        "  generate arm1.seed1.general  new  (1 min 0 s)",
        "  report                       its scores change",
        "  In all: 4 min 0 s, by what an earlier run took. Jobs that run no model are not counted.",
    ]


def test_many_jobs_share_a_line_of_their_arm_and_more_a_line_of_their_stage() -> None:
    report = ToRun("report", "report", "", "new", NOTHING)
    of_arms = list(to_run.lines([*to_generate(30), report], "results"))
    assert len(of_arms) == 33 and of_arms[1] == "  generate arm0, 2 jobs   new  (2 of unknown time)"
    of_stages = list(to_run.lines([*to_generate(200), report], "results"))
    assert of_stages[1:3] == ["  generate, 400 jobs  new  (400 of unknown time)", "  report              new"]
    assert of_stages[3].startswith("  In all: 400 of unknown time, ")


def test_a_job_costs_what_it_did_or_what_its_like_did(config: Path, tmp_path: Path) -> None:
    rows = parquet.read(pilot(tmp_path / "pilot") / "tables/costs.parquet", "costs").to_pylist()
    other = {"parent": "base", "fit": {"method": "sft", "data": "dialogues"}}
    composed = {"parent": "base", "fit": {"method": "task_arithmetic", "vectors": ["tuned"], "scale": 1.0}}
    parsed = loading.load([config], {"arms": {"other": other, "composed": composed}})

    def seconds(stage: str, arm: str, ev: str | None) -> float | None:
        cost = spending.of_job(parsed, rows, stage, arm, ev)
        return cost.seconds if cost else None

    assert seconds("train", "tuned", None) == seconds("train", "other", None) == 60.0
    assert seconds("train", "composed", None) is None, "no fit of this method has costs"
    assert seconds("generate", "base", "general") == 10.0
    assert seconds("generate", "other", "general") == 15.0, "the mean of the arms that took the eval"
    assert seconds("judge", "base", "general") is None
    assert seconds("score", "base", "general") == 0.0, "runs no model"


def test_every_stage_that_others_read_has_a_word() -> None:
    assert to_run.WHAT.keys() == STAGES.keys() - {"report", "database"}


def test_a_setting_that_changes_behind_its_beginning_is_a_reason() -> None:
    """A list of many rows begins as before: what changes is said all the same, and in few words."""
    pairs = [{"arm": "instruct", "eval": f"eval{number}"} for number in range(9)]
    made, planned = ({"spec": json.dumps({"pairs": part, "seed": 0})} for part in (pairs, [*pairs, {"arm": "new"}]))
    assert list(adoption.differences(made, planned)) == ["pairs has changed"]
    assert list(adoption.differences(made, made)) == []
    longer = {"spec": json.dumps({"pairs": "a" * 99, "seed": 0})}
    assert list(adoption.differences(made, longer)) == [
        f'pairs was {json.dumps(pairs)[:60]}, is "{"a" * 59}',
    ]
