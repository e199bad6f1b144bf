"""What the report says of its origin: config files, commit, local changes, machines."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import fake_results as fake
from conftest import ROOT, one_fit
from imprint.config import loading
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.report import browser, page, write
from imprint.report.facts import Provenance
from imprint.runtime import job_record, provenance


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_commit_and_local_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert (provenance.commit(), provenance.changes()) == (None, [])
    git(tmp_path, "init", "-q")
    for name in ("same", "edited", "gone"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".gitignore").write_text("results\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    assert provenance.changes() == [] and len(provenance.commit() or "") == 40
    (tmp_path / "edited").write_text("other")
    (tmp_path / "gone").unlink()
    for name in ("new\x1b[31m", "results"):
        (tmp_path / name).write_text("x")
    assert provenance.changes() == ["edited", "gone", r"new\x1b[31m"]


def test_config_files_are_named_within_the_project_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.delenv(provenance.CONFIG, raising=False)
    assert provenance.config_files() == []
    files = [Path("config/a.yaml"), project / "b.yaml", tmp_path / "secret/c.yaml", Path("../d.yaml")]
    monkeypatch.setenv(provenance.CONFIG, "")  # so that it is restored afterwards
    provenance.keep_config(files, {"seeds": 1, "limit": 2})
    outside = ["c.yaml (outside the project)", "d.yaml (outside the project)"]
    assert provenance.config_files() == ["config/a.yaml", "b.yaml", *outside, "--config limit", "--config seeds"]
    assert str(tmp_path) not in os.environ[provenance.CONFIG]


def test_a_machine_in_words() -> None:
    here = provenance.machine()
    assert here["cores"] == os.cpu_count() and here["memory_bytes"] > 2**28
    assert f"Python {here['python']}" in provenance.words(here) and here["host"] in provenance.words(here)
    two = {"host": "n1", "gpus": ["H100", "H100"], "memory_bytes": 2**35}
    assert provenance.words(two) == "n1; 2 × H100; 32 GiB of memory"
    assert provenance.words({"host": "\x1b"}) == r"\x1b; no GPU"


def test_the_machines_of_jobs_come_from_their_records(tmp_path: Path) -> None:
    made = [tmp_path / f"{name}.parquet" for name in "abc"] + [tmp_path / "manifest.json", tmp_path / "none.parquet"]
    for path in made[:4]:
        with job_record.kept(job_record.path_for(path), gpus=0, threads=1):
            pass
    record = job_record.path_for(made[0])
    record.write_text('{"attempts": [{"host": "old", "gpu_names": ["H100"], "machine": null}]}')
    assert write.machines(made) == {provenance.words(provenance.machine() | {"gpus": []}): 3, "old; H100": 1}


def test_the_report_shows_them() -> None:
    origin = Provenance(
        versions={"torch": "2"},
        commit="c" * 40,
        changes=[f"<b>{number}" for number in range(23)],
        configs=["config/a.yaml"],
        date="2026-01-01 10:00 UTC",
        machine="n1; no GPU",
        machines={"n2; H100": 3, "n3": 1},
    )
    tables, facts, template = fake.tables(4), fake.facts(), ROOT / "resources/report.html.jinja"
    data = browser.collect(tables, facts, browser.BUDGET)
    text = page.render(template, tables, {}, facts, origin, data)
    assert "Written 2026-01-01 10:00 UTC from <code>config/a.yaml</code>, on n1; no GPU." in text
    assert "3 jobs with a model ran on n2; H100. 1 job with a model ran on n3." in text
    assert "with local changes</strong> in <code>&lt;b&gt;0</code>" in text and "and 3 more." in text
    alone = origin.model_copy(update={"machines": {"n1; no GPU": 2}})
    assert "2 jobs with a model ran on the same machine." in page.render(template, tables, {}, facts, alone, data)
    clean = page.render(template, tables, {}, facts, origin.model_copy(update={"changes": []}), data)
    assert "without local changes" in clean
    assert "local changes" not in page.render(template, tables, {}, facts, fake.PROVENANCE, data)


def test_nothing_of_it_is_in_the_params_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params = []
    for config in ("a.yaml", "b.yaml"):
        monkeypatch.setenv(provenance.CONFIG, f'["{config}"]')
        params.append(all_jobs(Experiment(loading.parse(one_fit())))["report"].params(()))
    assert params[0] == params[1] and "a.yaml" not in params[0]
