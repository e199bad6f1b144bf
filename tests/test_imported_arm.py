"""Arms whose runs another harness has logged: from the config to the report, and what reruns."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import logs
import pico
import workflow
from conftest import ROOT, make_project
from imprint.config import loading
from imprint.imports import _job, _values
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.tables import dataset_rows

SUMS = {f"What is {n} plus {n}?": str(2 * n) for n in range(2, 14)}
CONFIG: dict[str, Any] = {
    "results": "results",
    "models": {"pico": {"path": "resources/local/pico", "engine": "echo"}},
    "datasets": {"sums": {"bundled": "sums.jsonl"}},
    "evals": {"sums": {"dataset": "sums", "score": "numeric", "max_new_tokens": 32}},
    "arms": {
        "base": {"model": "pico"},
        "theirs": {"runs": {"import": "lm_eval", "evals": {"sums": "logs/samples_sums.jsonl"}}, "control": ["base"]},
        "valued": {
            "runs": {
                "import": "lm_eval", "evals": {"sums": "logs/samples_sums.jsonl"}, "take": {"accuracy": "exact_match"},
            },
        },
    },
    "questions": {
        "gain": {"asks": "Does their model add better?", "arm": "theirs", "control": "base", "eval": "sums"}
    },
    "charts": ["answers"],
}  # fmt: skip


def rows() -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": question}], "reference": {"answer": answer}}
        for question, answer in SUMS.items()
    ]


def log(path: Path, questions: list[str], wrong: str = "") -> Path:
    """A log in which the answers are right, but for one. Its values are others, so that they can be told apart."""
    return logs.write(
        path,
        [
            logs.line(
                f" {question.upper()}  ", f"It is {'0' if question == wrong else SUMS[question]}", exact_match=0.25
            )
            for question in questions
        ],
    )


def command(project: Path, name: str, *arguments: str) -> tuple[int, str]:
    """The exit status and the first line of a command."""
    words = [sys.executable, "-m", f"imprint.{name}", *arguments]
    done = subprocess.run(
        words, cwd=project, env=workflow.environment(), capture_output=True, encoding="utf-8", check=False
    )
    return done.returncode, done.stdout.partition("\n")[0]


def table(project: Path, *parts: str) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = pq.read_table(project / "results" / "/".join(parts), partitioning=None).to_pylist()
    return read


@pytest.mark.workflow
@pytest.mark.slow
def test_from_the_logs_to_the_report(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    pico.make(project / "resources/local/pico")
    (project / "resources/bundled/sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (project / "config/config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    questions = list(SUMS)
    path = log(project / "logs/samples_sums.jsonl", questions[:0:-1])  # another order, and one question is missing
    workflow.run(project)

    generations = table(project, "generations/theirs/seed0/sums.parquet")
    assert {row["error"] for row in generations} == {None, "not in the import"}
    assert sum(row["error"] is not None for row in generations) == 1
    scores = table(project, "scores/theirs/seed0/sums.parquet")
    accuracy = [row for row in scores if row["metric"] == "accuracy"]
    assert [row["value"] for row in accuracy] == [None, *[1.0] * (len(SUMS) - 1)]
    valued = table(project, "scores/valued/seed0/sums.parquet")
    assert [row["value"] for row in valued] == [None, *[0.25] * (len(SUMS) - 1)]
    assert {row["status"] for row in valued} == {"error", "scored"}
    (answer,) = table(project, "tables/answers.parquet")
    assert answer["verdict"] == "better" and answer["n_pairs"] == len(SUMS) - 1
    said = (project / "results/logs/import_run/theirs.seed0.sums.log").read_text()
    assert "has 11 of the 12 rows of" in said and "1 rows of" in said
    page = re.sub(r"<[^>]+>|&#34;", "", (project / "results/report.html").read_text())
    assert "responses from logs, read by lm_eval" in page
    assert "Settings: runs: import lm_eval, evals {sums:logs/samples_sums.jsonl}" in page

    (project / "policy.yaml").write_text("better: [gain]\n")
    assert command(project, "gate", "--policy", "policy.yaml") == (0, "### Gate: pass")
    assert command(project, "export") == (0, "3 logs with 36 samples are in results/export")
    sides = [f"results/export/{arm}/seed0" for arm in ("base", "theirs")]
    status, said = command(project, "compare", *sides)
    assert status == 0 and said.startswith("A is base, B is theirs. Each side is one run")

    assert workflow.planned(project) == set()
    path.touch()
    assert workflow.planned(project) == set(), "the content counts"
    log(path, questions, wrong=questions[0])
    planned = workflow.planned(project)
    assert {"import_run theirs 0 sums", "import_run valued 0 sums", "import_values valued 0 sums"} <= planned
    assert {"score theirs 0 sums", "summarize", "report"} <= planned
    assert not {"generate base 0 sums", "score base 0 sums", "prepare sums"} & planned

    (project / "results/scores/theirs/seed0/sums.parquet").unlink()
    assert command(project, "gate", "--policy", "policy.yaml")[0] == 3, "the answers are not those of the scores"


def spec(**more: Any) -> _job.Spec:
    return _job.Spec(
        **{"arm": "a1", "seed": 0, "eval": "sums", "reader": Plug(name="lm_eval"), "samples": 1, "limit": None, **more}
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "sums.parquet"
    dataset_rows.write(path, "sums", rows(), "0" * 64)
    return path


def test_less_than_half_is_an_error_that_shows_both_sides(tmp_path: Path, dataset: Path) -> None:
    other = logs.line("Which sum?", "It is 4", exact_match=0.25)
    path = log(tmp_path / "samples_sums.jsonl", list(SUMS)[:5])
    path.write_text(path.read_text() + json.dumps(other) + "\n")
    with pytest.raises(ImprintError, match=r"5 of the 12 questions") as caught:
        _job.run(spec=spec(), log=path, dataset=dataset, out=tmp_path / "g.parquet", prompts=tmp_path / "p.parquet")
    assert list(SUMS)[5] in str(caught.value) and "Which sum?" in str(caught.value)
    assert not (tmp_path / "g.parquet").exists()


def test_a_log_of_a_part_is_told_from_one_of_another_eval(tmp_path: Path, dataset: Path) -> None:
    path = log(tmp_path / "samples_sums.jsonl", list(SUMS)[:5])
    with pytest.raises(ImprintError, match=r"5 of the 12 questions.* and no others.*--limit.*rows of the log alone"):
        _job.run(spec=spec(), log=path, dataset=dataset, out=tmp_path / "g.parquet", prompts=tmp_path / "p.parquet")


def test_the_results_beside_a_log_are_no_log(tmp_path: Path, dataset: Path) -> None:
    path = tmp_path / "results_2026-01-01T00-00-00.0.json"
    path.write_text('{\n  "results": {}\n}')
    with pytest.raises(ImprintError, match="means of a run; write the file beside it"):
        _job.run(spec=spec(), log=path, dataset=dataset, out=tmp_path / "g.parquet", prompts=tmp_path / "p.parquet")


def test_a_missing_metric_names_those_that_there_are(tmp_path: Path, dataset: Path) -> None:
    path = log(tmp_path / "samples_sums.jsonl", list(SUMS))
    wanted = _values.Spec(**dict(spec()), metrics={"accuracy": "acc"}, primary="accuracy")
    with pytest.raises(
        ImprintError, match=r"no metric 'acc'; write `take: \{accuracy: NAME\}` with one of exact_match"
    ):
        _values.run(spec=wanted, log=path, dataset=dataset, out=tmp_path / "s.parquet")


def test_rows_of_one_question_are_told_apart_by_their_answers(tmp_path: Path) -> None:
    same = [{"messages": [{"role": "user", "content": "Which?"}], "reference": {"answer": each}} for each in "ab"]
    dataset_rows.write(tmp_path / "d.parquet", "d", same, "0" * 64)
    path = logs.write(
        tmp_path / "samples_d.jsonl",
        [
            logs.line("Which?", f"It is {each}", doc={"question": "Which?", "n": each}, target=each, acc=1.0)
            for each in "ba"
        ],
    )
    out = tmp_path / "g.parquet"
    _job.run(spec=spec(), log=path, dataset=tmp_path / "d.parquet", out=out, prompts=tmp_path / "p.parquet")
    order = [row["reference"]["answer"] for row in dataset_rows.read(tmp_path / "d.parquet")]
    assert [row["response"] for row in pq.read_table(out).to_pylist()] == [f"It is {each}" for each in order]


def test_a_limited_run_takes_the_limited_rows(tmp_path: Path, dataset: Path) -> None:
    path, out = log(tmp_path / "samples_sums.jsonl", list(SUMS)), tmp_path / "g.parquet"
    _job.run(spec=spec(limit=3), log=path, dataset=dataset, out=out, prompts=tmp_path / "p.parquet")
    kept = {row["example_id"] for row in dataset_rows.read(dataset, 3)}
    assert {row["example_id"] for row in pq.read_table(out).to_pylist()} == kept


LOG = "tests/logs/samples_tiny_sums.jsonl"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": {"child": {"parent": "theirs"}}}, "arms.child.parent: 'theirs' has no weights"),
        (
            {"arms": {"theirs": {"apply": {"context": "plain"}}}},
            "arms.theirs: apply: logs of another harness have only",
        ),
        ({"arms": {"theirs": {"model": "pico"}}}, "found both model and runs"),
        ({"arms": {"theirs": {"runs": {"evals": {"other": LOG}}}}}, "no eval named 'other'"),
        ({"arms": {"theirs": {"runs": {"evals": {"sums": "tests/logs/none.jsonl"}}}}}, "there is no file"),
        ({"arms": {"theirs": {"runs": {"evals": {"sums": "../x.jsonl"}}}}}, "is no path of a file to read"),
        ({"arms": {"theirs": {"runs": {"import": "lm_evil"}}}}, "did you mean 'lm_eval'"),
        ({"arms": {"theirs": {"runs": {"take": {"accurate": "acc"}}}}}, "no metric of 'sums' named 'accurate'"),
        ({"evals": {"sums": {"score": "options"}}}, "take the log's own values, `take: {accuracy: METRIC}`"),
        ({"arms": {"theirs": {"runs": {"evals": {"sums": "tests/logs"}}}}}, "'tests/logs' is a folder; write the path"),
        (
            {"datasets": {"roles": {"synth": "role_prompts", "from": "sums", "teacher": "theirs"}}},
            "datasets.roles: 'theirs' has no weights",
        ),
        (
            {"evals": {"sums": {"describe": ["judged_behaviours"], "judge": "theirs"}}},
            "evals.sums.judge: 'theirs' has no weights",
        ),
        (
            {
                "arms": {
                    "mixed": {
                        "parent": "base",
                        "fit": {"method": "task_arithmetic", "vectors": ["theirs"], "scale": 1.0},
                    }
                }
            },
            "arms.mixed.fit: 'theirs' has no weights",
        ),
    ],
)
def test_what_cannot_be_is_said_before_the_first_job(
    change: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    config = loading.merge(CONFIG, {"datasets": {"sums": {"bundled": "general.jsonl"}}})
    config = loading.merge(config, {"models": {"pico": {"path": None, "hub": "a/b", "revision": "0" * 40}}})
    config["arms"] = {name: arm for name, arm in config["arms"].items() if name != "valued"}
    config = loading.merge(config, {"arms": {"theirs": {"runs": {"evals": {"sums": LOG}}}}})
    loading.parse(config)
    with pytest.raises(ImprintError) as caught:
        loading.parse(loading.merge(config, change))
    assert said in str(caught.value)
