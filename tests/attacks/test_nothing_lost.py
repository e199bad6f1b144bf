"""What a quick look, `make resume` and `make prune` may never cost: full results, other runs, other people's files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.profiles import ProfileConfigFileParser

import mini
import pico
import security
import workflow
from conftest import ROOT, one_fit
from imprint import resume
from imprint.config import loading
from imprint.dag import run_lock
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.runtime import processes, stages
from imprint.runtime.errors import ImprintError

TEMPORARY = "tmpabcd_123"  # as tempfile names a folder
OTHER_ID = "imprint-0123456789abcdef"


def write_config(project: Path, name: str, **changes: Any) -> Path:
    path = project / "config" / name
    text = json.dumps(one_fit() | changes) if path.suffix == ".json" else yaml.safe_dump(one_fit() | changes)
    path.write_text(text)
    return path


# A limited run


@pytest.mark.workflow
def test_a_quick_look_leaves_full_results_as_they_are(project: Path) -> None:
    workflow.shorten(project)
    pico.make(project / "resources/local/pico")
    shutil.copy(ROOT / "tests/pico.yaml", project / "config/config.yaml")

    def base_alone(raw: dict[str, Any]) -> None:
        raw["datasets"] = {"general": raw["datasets"]["general"]}
        raw["evals"], raw["arms"], raw["charts"] = {"general": raw["evals"]["general"]}, {"base": {"model": "pico"}}, []
        del raw["questions"]

    workflow.edit(project, base_alone)
    full = [
        project / "results" / made for made in ("report.html", "tables/summary.parquet", "datasets/general.parquet")
    ]
    for path in full:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of all rows")
    text = workflow.run(project, "--config", "limit=2")
    assert "Report: results/limit2/report.html   Tables: results/limit2/imprint.duckdb" in text
    assert "limit: 2" in re.sub(r"<[^>]+>", "", (project / "results/limit2/report.html").read_text())
    assert not (project / "results/.run.lock").exists() and (project / "results/limit2/.run.lock").exists()
    assert all(path.read_text() == "of all rows" for path in full)
    security.seen(
        "a quick look (`--config limit=32`) after a full run", "it has a folder of its own, such as results/limit32"
    )


def test_the_folder_of_a_limited_run_is_one_for_all_that_it_makes() -> None:
    for given, folder in (({}, "results/real"), ({"limit": 32}, "results/real/limit32")):
        experiment = Experiment(loading.parse(one_fit() | {"results": "results/real/"} | given))
        assert experiment.results == folder
        made = [path for jobs in all_jobs(experiment).values() for path in (*jobs.files(), *jobs.logs())]
        own = [path for path in made if not path.startswith("resources/")]
        assert {path.split("/")[0] for path in set(made) - set(own)} == {"resources"}
        assert {"arms/tuned/seed0/manifest.json", "scores/base/seed0/general.parquet", "tables/summary.parquet"} <= {
            path.removeprefix(f"{folder}/") for path in own
        }
        assert all(path.removeprefix(f"{folder}/").split("/")[0] in stages.PARTS for path in own)


# Resuming


DRIVER = """
import subprocess, sys, time
from imprint.dag import run_lock
run_lock.hold(sys.argv[1])
print(subprocess.Popen(["sleep", "600"], start_new_session=True).pid, flush=True)
time.sleep(600)
"""


class Driver:
    """A run, as far as `make resume` can tell: it holds a results folder and has started a job."""

    def __init__(self, project: Path, results: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, results],
            cwd=project, env=workflow.environment(), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout
        self.job = int(self.process.stdout.readline())
        self.lives = [self.process.pid, self.job]


def lives(pid: int) -> bool:
    return processes.started(pid) is not None


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen]]:
    """Processes that the test ends."""
    children: list[subprocess.Popen] = []
    yield children
    for child in children:
        child.kill()
        child.wait()


@pytest.fixture
def two_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen]
) -> Iterator[tuple[Driver, Driver]]:
    """Two runs in one working folder, on results/a and results/b, with snakemake's locks as two runs leave them."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(resume, "GRACE", 1)
    (project / ".snakemake/locks").mkdir(parents=True)
    drivers = []
    for number, name in enumerate("ab"):
        write_config(project, f"{name}.yaml", results=f"results/{name}")
        drivers.append(Driver(project, f"results/{name}"))
        started.append(drivers[-1].process)
        lock = project / f".snakemake/locks/{number}.output.lock"
        lock.write_text(f"resources/models/m1/manifest.json\nresults/{name}/report.html\n")
    yield drivers[0], drivers[1]
    for driver in drivers:
        if lives(driver.job):
            os.kill(driver.job, signal.SIGKILL)


@pytest.mark.parametrize("hung", [False, True], ids=["a killed run", "a hung run"])
def test_resume_ends_its_own_run_alone(
    hung: bool, two_runs: tuple[Driver, Driver], project: Path, started: list[subprocess.Popen]
) -> None:
    healthy, broken = two_runs
    (project / "snakemake.log").touch()
    watched = "tail -f snakemake.log results/b/.run.lock"
    started.append(subprocess.Popen(["bash", "-c", f"exec -a python-editor {watched}"], cwd=project))
    comment = "import time; time.sleep(600)  # snakemake"
    started.append(subprocess.Popen([sys.executable, "-c", comment], cwd=project))
    os.kill(broken.job, signal.SIGSTOP)
    os.kill(broken.process.pid, signal.SIGSTOP if hung else signal.SIGKILL)
    left = project / "results/b/arms/tuned/seed0/weights/.model.safetensors.a1b2c3d4.part"
    left.parent.mkdir(parents=True)
    gone = [left, project / "results/b/.imprint.duckdb.abcd_123.part"]
    kept = [project / "results/a/.imprint.duckdb.abcd_123.part", left.with_name(".mine.part")]
    for path in (*gone, *kept):
        path.touch()
    resume.main(["--configfile", "config/b.yaml"])
    broken.process.wait(5)
    assert not any(lives(pid) for pid in broken.lives)
    assert all(lives(pid) for pid in (*healthy.lives, *(child.pid for child in started[2:])))
    assert [path.name for path in run_lock.LOCKS.iterdir()] == ["0.output.lock"]
    assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)
    assert (project / "results/b/.run.lock").read_text() == "", "the next resume looks for nothing"
    with pytest.raises(ImprintError, match=f"written by .*process {healthy.process.pid}, in {project}"):
        run_lock.hold("results/a")
    security.seen(
        "`make resume` beside a healthy run on other results, and beside `tail -f snakemake.log` as python-editor",
        "it ends the processes that carry the id of its own run, and removes the locks of its own results alone",
    )
    security.seen(
        "half-written temporary files of a killed run", "`make resume` removes those in its own results folder"
    )


def test_resume_takes_what_snakemake_takes(two_runs: tuple[Driver, Driver], project: Path) -> None:
    """The results folder that --config names, and that of a limited run."""
    healthy, other = two_runs
    resume.main(["--configfile", "config/b.yaml", "--config", "limit=4"])
    assert all(lives(pid) for pid in (*healthy.lives, *other.lives))
    resume.main(["--configfile", "config/b.yaml", "--config", "results=results/a", "seeds=[0, 1]"])
    healthy.process.wait(5)
    assert not any(lives(pid) for pid in healthy.lives) and all(lives(pid) for pid in other.lives)


def lock_line(pid: int, **changes: Any) -> run_lock.Run:
    told = {"host": socket.gethostname(), "user": "ann", "folder": str(Path.cwd()), "since": "today"}
    return run_lock.Run(**{"id": OTHER_ID, "pid": pid, "started": processes.started(pid), **told, **changes})


def write_lock(*lines: run_lock.Run) -> Path:
    path = Path("results/.run.lock")
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line.model_dump_json()}\n" for line in lines))
    return path


def test_a_process_id_that_another_process_has_now_is_left_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen]
) -> None:
    monkeypatch.chdir(project)
    write_config(project, "config.yaml")
    lock = write_lock()
    with lock.open() as reading:
        other, reader = (subprocess.Popen(["sleep", "600"], stdin=into) for into in (None, reading))
    started += [other, reader]
    # A bystander with the driver's id; one that even began when the driver did; one that has the lock file open.
    write_lock(lock_line(other.pid, started=1), lock_line(other.pid), lock_line(reader.pid, started=1))
    resume.main([])
    assert lives(other.pid) and lives(reader.pid)
    asked: list[int] = []

    def belonged(pid: int) -> bool:
        """It belongs when it is looked for, and another process has its id when the signal is to be sent."""
        asked.append(pid)
        return len(asked) == 1

    assert belonged(other.pid) and not processes.send(other.pid, signal.SIGKILL, belonged)
    assert lives(other.pid) and len(asked) == 2
    write_lock(lock_line(reader.pid))
    monkeypatch.setattr(resume, "GRACE", 1)
    resume.main([])
    reader.wait(5)
    assert lives(other.pid)
    security.seen(
        "`make resume` finds a bystander under the process id of the killed run",
        "a process is signalled only if it began when the run did and has its lock file open, or carries its id",
    )


def test_a_run_of_another_place_is_ended_there(
    project: Path, monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen], capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(project)
    write_config(project, "config.yaml")
    environment = {**os.environ, processes.RUN: OTHER_ID}
    started.append(subprocess.Popen(["sleep", "600"], env=environment))
    for elsewhere, said in (
        ({"host": "elsewhere"}, "write the same `make resume` on elsewhere"),
        ({"folder": "/another/checkout"}, "write the same `make resume` in /another/checkout"),
    ):
        lock = write_lock(lock_line(1, **elsewhere))
        before = lock.read_text()
        with pytest.raises(SystemExit, match=said):
            resume.main([])
        assert lives(started[0].pid) and lock.read_text() == before


SQUEUE = """#!/bin/sh
test -e cancelled || printf '11|{id}_6f0c-44\\n'
printf '12|imprint-ffffffffffffffff_6f0c-44\\n13|my job\\nwith a break | and more\\n\\n14|x{id}_6f0c\\n'
"""


def test_only_this_runs_slurm_jobs_are_cancelled(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(project)
    write_config(project, "config.yaml")
    lock = write_lock(lock_line(2**22 + 1))
    (project / "logs/slurm").mkdir(parents=True)
    tools = {"squeue": SQUEUE.replace("{id}", OTHER_ID), "scancel": '#!/bin/sh\necho "$@" >> cancelled\n'}
    for name, text in tools.items():
        (project / "bin" / name).parent.mkdir(exist_ok=True)
        (project / "bin" / name).write_text(text)
        (project / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{project / 'bin'}:{os.environ['PATH']}")
    resume.main([])
    (words,) = (project / "cancelled").read_text().splitlines()
    assert words.split()[1:] == [f"--jobname={OTHER_ID}_6f0c-44"]
    assert f"cancelling Slurm job 11 ({OTHER_ID}" in capsys.readouterr().out
    assert lock.read_text() == ""
    security.seen(
        "`make resume` while Slurm lists jobs of other runs, and names with line breaks",
        "jobs are known by the run's id in their names, and cancelled by name",
    )


def test_the_profile_names_slurm_jobs_after_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with Path("profiles/slurm/config.yaml").open() as file:
        assert ProfileConfigFileParser().parse(file)["slurm-jobname-prefix"] == run_lock.ID


def test_a_run_that_ends_in_order_leaves_no_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    lock = write_lock(lock_line(1), lock_line(1))
    lock.write_text(lock.read_text() + "{garbage\n")
    words = [sys.executable, "-c", "from imprint.dag import run_lock; run_lock.hold('results')"]
    subprocess.run(words, env=workflow.environment(), check=True)
    assert [run.id for run in run_lock.runs(lock.read_text())] == [OTHER_ID, OTHER_ID], "a killed run's line stays"


# Results inside results


@pytest.mark.parametrize(
    "inside", ["results/arms/x", "results/charts", "results/real/datasets", "results/limit8", "runs/report.html/x"]
)
def test_results_inside_another_experiments_parts_are_refused(inside: str) -> None:
    with pytest.raises(ImprintError, match=rf"results: '{inside}' leads into '.*write another folder"):
        loading.parse(one_fit() | {"results": inside})
    security.seen("`results:` inside the parts of another experiment", "refused when the config is loaded")


def test_results_may_nest_otherwise_and_no_link_hides_where(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    for legal in ("results", "results/real", "results/real/charted", "results/paper/ppe/", "arms", "runs/a.b"):
        loading.parse(one_fit() | {"results": legal})
    (project / "results/scores").mkdir(parents=True)
    (project / "mine").symlink_to("results/scores")
    with pytest.raises(ImprintError, match=r"'mine' leads into 'scores'"):
        loading.parse(one_fit() | {"results": "mine"})


# Pruning


def run_prune(project: Path, *flags: str, check: bool = True) -> str:
    out = subprocess.run(
        [sys.executable, "-m", "imprint.prune", *flags],
        cwd=project, env=workflow.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (out.returncode == 0) == check, out.stdout + out.stderr
    return out.stdout + out.stderr


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def configs(project: Path) -> Path:
    """The folder of configs, with one that is small."""
    shutil.rmtree(project / "config")
    (project / "config").mkdir()
    write_config(project, "config.yaml")
    return project / "config"


@pytest.mark.parametrize("name", ["mine.yml", "deep/mine.json", "mine.YAML", "linked/mine.yaml"])
def test_prune_keeps_what_any_config_needs(name: str, project: Path, configs: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (configs / "linked").symlink_to(tmp_path / "linked")
    (configs / "deep").mkdir()
    arms = one_fit()["arms"]
    arms["slow"] = arms.pop("tuned")
    write_config(project, name, arms=arms)
    kept = [
        project / f"results/{made}" for made in ("arms/slow/seed0/manifest.json", "scores/slow/seed0/general.parquet")
    ]
    gone = [project / "results/arms/old/seed0/manifest.json", project / "results/charts/old.svg"]
    touch(*kept, *gone)
    run_prune(project, "--delete")
    assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)
    security.seen("`make prune` with a config called .yml or .json", "what it needs is kept, as of every config")


def test_prune_never_takes_a_users_file(project: Path, configs: Path) -> None:
    (project / "elsewhere").mkdir()
    users = [
        project / path
        for path in (
            "results/charts/notes.txt", "results/arms/notes.txt", "results/arms/old/notes/a.txt",
            "results/arms/noted/seed0/notes.txt", "results/arms/noted/seed0/manifest.json",
            "results/scores/old/seed0/mine.csv", "results/datasets/Mine.parquet", "results/mine/charts/old.svg",
            "results/generations/old/seed0/mine.work/notes.txt", "results/limit8/arms/old/seed0/manifest.json",
            "resources/models/my_model/model.safetensors", "resources/models/mine-0123abcd/config.json",
            "resources/data/mine/rows.jsonl", "resources/data/ifeval/notes.txt", "resources/data/.keep",
        )
    ]  # fmt: skip
    own = [
        project / path
        for path in (
            "results/charts/old.svg", "results/charts/old.md", "results/arms/old/seed0/manifest.json",
            Path("results/arms/old/seed1", "work", "checkpoint-3", "x"),
            f"results/arms/old/seed1/weights/{TEMPORARY}/x",
            "results/scores/old/seed0/general.parquet", "results/generations/old/seed0/general.work/.lock",
            "results/datasets/old.attempts.parquet", "results/datasets/old.job.json",
            "resources/models/.old-0123abcd.work/.lock", "resources/data/gsm8k_test/.test.jsonl.abcd_123.part",
            "resources/models/old-0123abcd/config.json",
        )
    ]  # fmt: skip
    touch(*users, *own)
    manifest = {"kind": "model", "files": {"config.json": "0" * 64}}
    (project / "resources/models/old-0123abcd/manifest.json").write_text(json.dumps(manifest))
    link = project / "results/arms/old/seed2"
    link.symlink_to(project / "elsewhere")
    before = sorted(project.rglob("*"))
    listed = run_prune(project)
    assert sorted(project.rglob("*")) == before, "listing deletes nothing"
    deleted = run_prune(project, "--delete")
    assert [path for path in users if not path.exists()] == [] and link.is_symlink()
    assert [path for path in own if path.exists()] == []
    for text in (listed, deleted):
        assert (
            "left as it is: results/arms/noted/seed0 (it holds what the pipeline does not write there: notes.txt)"
            in text
        )
        assert "left as it is: resources/data/ifeval (" in text
    security.seen(
        "files of a user in folders that `make prune` looks at",
        "it deletes what has a name and shape that the pipeline writes; a folder with anything else stays and is named",
    )


def test_prune_knows_a_results_folder_by_any_name(project: Path, configs: Path) -> None:
    (project / "results").mkdir()
    (project / "runs").symlink_to("results")
    write_config(project, "second.yaml", results="runs", seeds=[3])
    kept, gone = (project / f"results/arms/tuned/seed{seed}/manifest.json" for seed in (3, 4))
    touch(kept, gone)
    assert "results is being written" not in (text := run_prune(project)) and text.count("seed4") == 1
    run_prune(project, "--delete")
    assert kept.exists() and not gone.exists()


def test_prune_deletes_nothing_beside_a_run_whatever_its_config(
    project: Path, configs: Path, started: list[subprocess.Popen]
) -> None:
    """One of a limited run's jobs, when another run's end has taken away snakemake's locks."""
    gone = project / "results/charts/old.svg"
    touch(gone)
    environment = {**os.environ, processes.RUN: OTHER_ID}
    started.append(subprocess.Popen(["sleep", "600"], cwd=project, env=environment))
    mini.wait(lambda: processes.RUN in processes.environment(started[0].pid), "its start", 10)
    text = run_prune(project, "--delete", check=False)
    assert (
        "nothing was deleted: a run is going on in this folder" in text
        and f"has left process {started[0].pid};" in text
    )
    assert gone.exists()
