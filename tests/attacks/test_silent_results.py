"""Results that would be taken for something that they are not: made by code that was undone, or with other settings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import mini
import security
import workflow
from conftest import ROOT
from imprint.config import loading
from imprint.dag import code
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.runtime import frame, origin, parsed, work
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import canonical, file_sha256

FIT = "results/arms/instruct/seed0/manifest.json"
SCORER = "workflow/scripts/imprint/scores/ifeval.py"
FOLLOWS = {
    "generate instruct 0 constraints",
    "score instruct 0 constraints",
    *("collect", "summarize", "plot answers", "database", "report"),
}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small experiment, run once."""
    folder = mini.make(tmp_path_factory.mktemp("silent") / "project")
    workflow.edit(folder, lambda config: config["arms"]["instruct"]["fit"].update(epochs=2))
    workflow.run(folder)
    return folder


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to attack."""
    return Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))


def learning_rate(project: Path) -> None:
    workflow.edit(project, lambda config: config["arms"]["instruct"]["fit"].update(learning_rate=0.5))


# Code


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What a script is given of a job that runs one file of code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scorer.py").write_text("VALUE = 0.25\n")
    code = canonical({"scorer.py": parsed.read(Path("scorer.py")).sha256})
    (tmp_path / "out").write_text("")
    return SimpleNamespace(
        rule="score",
        wildcards={"arm": "base"},
        threads=1,
        resources={},
        input=[],
        log=["job.log"],
        output=["out"],
        params={"code": code},
    )


def test_code_edited_before_a_job(job: SimpleNamespace, capsys: pytest.CaptureFixture) -> None:
    Path("scorer.py").write_text("VALUE = 1.0\n")
    with pytest.raises(SystemExit), frame.job(job):
        raise AssertionError("the job ran with the edited code")
    said = capsys.readouterr().err
    assert "score arm=base: scorer.py" in said and "edited after this run was planned" in said and "run again" in said


def test_code_edited_during_a_job(job: SimpleNamespace, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit), frame.job(job):
        Path("scorer.py").unlink()
    assert "scorer.py" in capsys.readouterr().err
    assert not Path("out.made.json").exists()


def test_a_work_folder_outlives_an_edit(job: SimpleNamespace) -> None:
    with pytest.raises(SystemExit), frame.job(job), work.folder(Path("work"), "one") as folder:
        (folder / "checkpoint").touch()
        Path("scorer.py").write_text("VALUE = 1.0\n")
        work.remove(folder)
    assert Path("work/checkpoint").exists()
    Path("scorer.py").write_text("VALUE = 0.25\n")
    with frame.job(job), work.folder(Path("work"), "one") as folder:
        assert (folder / "checkpoint").exists(), "the edit is undone: the next run goes on"
        work.remove(folder)
    assert json.loads(Path("out.made.json").read_text())["params"] == job.params


def test_a_job_that_plans_itself_again_takes_the_code_that_the_run_was_planned_with() -> None:
    """As on Slurm, where a job reads the Snakefile anew and has its environment from the run."""
    told = "from imprint.dag import code; print(code.code('score', (('scores', 'ifeval'),), ('scores',)))"
    then = json.loads(code.code("score", (("scores", "ifeval"),), ("scores",))) | {SCORER: "as it was"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow/scripts"), origin.PLANNED: canonical(then)}
    again = subprocess.run(
        [sys.executable, "-c", told], env=environment, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert json.loads(again.stdout) == then
    with pytest.raises(ImprintError, match=SCORER):
        origin.begin(again.stdout)
    origin.begin(None)


@pytest.mark.workflow
def test_code_edited_during_a_run_and_undone(done: Path) -> None:
    score = done / "results/scores/base/seed0/constraints.parquet"
    summary = (done / "results/tables/summary.parquet").read_bytes()
    score.unlink()
    (done / "results/prompts/base/seed0/constraints.parquet").unlink()
    scorer = done / SCORER
    right = scorer.read_text()
    process = subprocess.Popen(
        workflow.command("--keep-going"),
        cwd=done, env=workflow.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    # The generation is made again first, so the run is planned and no score has begun.
    mini.wait((done / "results/generations/base/seed0/constraints.work").exists, "generating", process=process)
    scorer.write_text(right + "\nEDITED = True\n")
    said = process.communicate()[0]
    scorer.write_text(right)
    assert process.returncode != 0
    assert f"imprint: score arm=base seed=0 eval=constraints: {SCORER}: edited" in said
    assert not score.exists()
    workflow.run(done)
    assert (done / "results/tables/summary.parquet").read_bytes() == summary
    assert workflow.planned(done) == set()
    security.seen(
        "code edited while a run goes on, and undone",
        "jobs compare their code with what the run was planned with, at their start and end, and stop with its name; "
        "their outputs go, their work folders stay",
    )


@pytest.mark.workflow
@pytest.mark.slow
def test_a_fit_whose_code_is_edited_while_it_trains(tmp_path: Path) -> None:
    project = mini.make(tmp_path / "project")
    method = project / "workflow/scripts/imprint/methods/sft.py"
    right = method.read_text()
    process = subprocess.Popen(
        workflow.command(FIT),
        cwd=project, env=workflow.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    mini.wait(lambda: mini.checkpoints(project), "a checkpoint", process=process)
    method.write_text(right + "\nEDITED = True\n")
    said = process.communicate()[0]
    assert "methods/sft.py: edited after this run was planned" in said
    assert not (project / FIT).exists(), "the manifest of a failed job goes"
    assert mini.checkpoints(project), "its checkpoints stay"
    method.write_text(right)
    workflow.run(project, FIT)
    assert (project / FIT).is_file()
    attempts = json.loads((project / "results/arms/instruct/seed0/job.json").read_text())["attempts"]
    assert len(attempts) == 2 and attempts[1]["seconds"] > 0


# Settings


@pytest.mark.workflow
def test_without_snakemakes_records_what_fits_is_kept(done: Path) -> None:
    shutil.rmtree(done / ".snakemake")
    for path in done.rglob("*"):
        if path.is_file():
            os.utime(path)  # as after a copy
    assert workflow.planned(done) == set()
    assert workflow.planned(done) == set()


@pytest.mark.workflow
def test_without_snakemakes_records_what_differs_is_made_again(done: Path) -> None:
    shutil.rmtree(done / ".snakemake")
    learning_rate(done)
    said = workflow.run(done, "-n")
    assert f"{FIT}: method.settings.learning_rate was null, is 0.5" in said
    assert workflow.planned(done) == {"train_sft instruct 0", *FOLLOWS}
    shutil.rmtree(done / ".snakemake")
    assert workflow.planned(done, "results/scores/base/seed0/constraints.parquet") == set(), (
        "and only what is asked for"
    )
    workflow.run(done)
    assert json.loads((done / FIT).read_text())["spec"]["method"]["settings"]["learning_rate"] == 0.5
    assert re.search(r"learning_rate\W+0\.5\b", (done / "results/report.html").read_text())
    security.seen(
        "settings changed after `.snakemake/metadata` was lost",
        "what stands beside each output says what it was made with; what differs is named and "
        "made again, the rest is kept",
    )


@pytest.mark.workflow
def test_results_copied_moved_and_shared(done: Path, tmp_path: Path) -> None:
    other = mini.make(tmp_path / "other")
    shutil.copy(done / "config/config.yaml", other / "config/config.yaml")
    shutil.copytree(done / "resources/models", other / "resources/models")
    shutil.copytree(done / "results", other / "results", copy_function=shutil.copyfile)
    assert workflow.planned(other) == set(), "copied"
    workflow.edit(other, lambda config: config.update(results="renamed/here"))
    (other / "renamed").mkdir()
    (other / "results").rename(other / "renamed/here")
    assert not {job for job in workflow.planned(other) if job.startswith(("train", "generate", "score"))}, "moved"
    shutil.rmtree(other / "renamed")
    workflow.edit(other, lambda config: config.update(results="results"))
    (other / "results").symlink_to(done / "results")
    assert workflow.planned(other) == set(), "shared"
    learning_rate(other)
    workflow.run(other)
    assert workflow.planned(other) == set()
    assert "train_sft instruct 0" in workflow.planned(done), "the first checkout does not take them for its own"
    security.seen(
        "results copied to, moved to or shared with another checkout, with another config",
        "what stands beside each output is compared with the config; a checkout notices what another has made anew",
    )


@pytest.mark.workflow
def test_an_input_replaced_by_an_older_one(done: Path) -> None:
    data = done / "resources/bundled/dialogues.jsonl"
    right, time = data.read_text(), data.stat()
    data.write_text(right.replace(" the ", " a "))
    os.utime(data, (1, 1))
    said = workflow.run(done, "-n")
    assert "results/datasets/dialogues.parquet: resources/bundled/dialogues.jsonl is not what it was made from" in said
    assert {"prepare dialogues", "train_sft instruct 0", *FOLLOWS} <= workflow.planned(done)
    data.write_text(right)
    os.utime(data, ns=(time.st_atime_ns, time.st_mtime_ns))
    assert workflow.planned(done) == set(), "undone"
    # What an unfinished run, a sorted copy or a folder of another experiment leaves: generations of other weights.
    manifest = json.loads((done / FIT).read_text())
    (done / FIT).write_text(json.dumps({**manifest, "fingerprint": "0" * 64}))
    made = done / f"{FIT}.made.json"
    vouched = json.loads(made.read_text())
    made.write_text(json.dumps({**vouched, "sha256": file_sha256(done / FIT)}))
    os.utime(done / FIT, (1, 1))
    shutil.rmtree(done / ".snakemake")
    assert workflow.planned(done) >= {"generate instruct 0 constraints", "score instruct 0 constraints"}
    security.seen(
        "an input replaced by an older file, or results beside inputs that they were not made from",
        "inputs are compared by content with what each output was made from; what differs is named and made again",
    )


@pytest.mark.workflow
@pytest.mark.parametrize("file", [FIT, "results/scores/base/seed0/constraints.parquet"])
def test_a_file_of_which_nothing_is_known_is_made_again(done: Path, file: str) -> None:
    shutil.rmtree(done / ".snakemake")
    with (done / file).open("ab") as out:
        out.write(b"\n")
    said = workflow.run(done, "-n")
    assert f"{file}: nothing beside it says what it was made with, or it was changed since" in said
    assert {FIT: "train_sft instruct 0"}.get(file, "score base 0 constraints") in workflow.planned(done)
    security.seen(
        "an output changed or put in place where snakemake has no record",
        "named and made again, since nothing beside it vouches for it",
    )


@pytest.mark.workflow
def test_broken_records(done: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    junk = [
        b"\xff\xfe\x00",
        b"[1]",
        b'"text"',
        b"5",
        b"null",
        b'{"params": 5}',
        b'{"params": [[1]]}',
        b"{",
        deep.encode(),
    ]
    records = sorted(path for path in (done / ".snakemake/metadata").rglob("*") if path.is_file())
    assert len(records) > len(junk)
    sound = json.loads(records[0].read_bytes())
    junk += [json.dumps({**sound, **change}).encode() for change in ({"params": [1]}, {"input": None})]
    junk += [json.dumps({**sound, "input_checksums": {"a": "no algorithm"}}).encode()]
    for i, path in enumerate(records):
        path.write_bytes(junk[i % len(junk)])
    said = workflow.run(done, "-n")
    assert "Traceback" not in said and "Error" not in said
    assert workflow.planned(done) == set()
    security.seen(
        "`.snakemake/metadata` holds random bytes or other JSON",
        "as if it were missing: made anew from what stands beside the outputs",
    )


@pytest.mark.workflow
def test_every_output_is_vouched_for(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes of the stages name just the files that jobs declare."""
    monkeypatch.chdir(finished)
    stage = all_jobs(Experiment(loading.load([Path("config/config.yaml")])))
    outputs = [file for jobs in stage.values() for file in jobs.files()]
    beside = [path for top in ("results", "resources") for path in Path(top).rglob("*.made.json")]
    assert sorted(outputs) == sorted(str(path).removesuffix(".made.json") for path in beside)
