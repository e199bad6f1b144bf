"""Faults on one machine: what is broken is detected, named, and regenerated or refused; it is never aggregated."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import mini
import reliability
import workflow
from conftest import ROOT
from imprint.dag import run_lock
from imprint.runtime.errors import ImprintError

FIT = "results/arms/instruct/seed0/manifest.json"
needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
    reason="mounting a small or read-only disk needs root",
)


NO_NETWORK = ["unshare", "-n"]
"""A command run by this has no network, not even to its own machine."""
can_unshare = (
    os.geteuid() == 0 and subprocess.run([*NO_NETWORK, "true"], check=False, capture_output=True).returncode == 0
)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment, run once without a break; after the fetching, where it can be done, without a network."""
    folder = mini.make(tmp_path_factory.mktemp("unbroken") / "project")
    workflow.run(folder, "--until", "fetch_model")
    prefix = NO_NETWORK if can_unshare else []
    words = [*prefix, *workflow.command()]
    out = subprocess.run(words, cwd=folder, env=workflow.environment(), capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stdout + out.stderr
    return folder


# The network


@pytest.mark.skipif(not can_unshare, reason="taking the network away needs root")
def test_without_a_network_all_but_fetching_runs(unbroken: Path) -> None:
    reach = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    out = subprocess.run([*NO_NETWORK, sys.executable, "-c", reach], capture_output=True, text=True, check=False)
    assert "unreachable" in out.stderr, "the namespace has a network after all"
    assert (unbroken / "results/report.html").exists()


def test_only_fetching_may_use_the_network_and_stays_where_the_run_is() -> None:
    scripts = (ROOT / "workflow/scripts").glob("*.py")
    online = {path.stem for path in scripts if "network=True" in path.read_text()}
    assert online == {"fetch_data", "fetch_hub", "fetch_model", "reach_model"}
    online |= {"generate_on_server", "judge_on_server", "synthesize_on_server"}
    text = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    local = re.findall(r"^localrules:\n((?:    \w+,\n)+)", text, re.MULTILINE)
    assert set(re.findall(r"\w+", " ".join(local))) == online


@pytest.fixture
def done(unbroken: Path, tmp_path: Path) -> Path:
    """A copy of it, times and all."""
    folder = tmp_path / "project"
    shutil.copytree(unbroken, folder, symlinks=True)
    return folder


# Two runs


def test_a_second_run_on_a_results_folder_is_refused(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (done / "results/report.html").unlink()
    (done / "results/shared").mkdir()
    other = mini.make(tmp_path / "other")
    (other / "results").symlink_to(done / "results")
    monkeypatch.chdir(done)
    run_lock.hold("results")
    try:
        for project in (done, other):
            text = workflow.run(project, check=False)
            assert "results: 'results' is being written by " in text
            assert f"process {os.getpid()}, in {done}, since " in text
            assert "a `results:` folder of its own" in text
            assert "rule report" not in text
            assert "total" in workflow.run(project, "-n"), "looking is allowed"
    finally:
        os.close(run_lock._held.pop())
    workflow.run(done)
    reliability.seen(
        "a second run on one results folder, from the same or another working folder",
        "it is refused before its first job and told who writes there, since when, and what to do",
        "runs as soon as the first has ended",
    )


def test_a_stale_lock_is_explained_with_the_command_that_clears_it(done: Path) -> None:
    (done / "results/report.html").unlink()
    lock = done / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("results/report.html\n")
    text = workflow.run(done, check=False)
    assert "a run on 'results' was killed and has left its lock behind (.snakemake/locks/0.output.lock)" in text
    assert "write `make resume`" in text
    workflow.run(done, "--unlock")
    workflow.run(done, "--rerun-incomplete")
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("elsewhere/report.html\n")
    (done / "results/report.html").unlink()
    workflow.run(done)
    reliability.seen(
        "a lock that a killed run left behind",
        "named, with the command that clears it: `make resume`",
        "`make resume` goes on",
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--cores 2", True),
        ("--cores all --configfile config/real.yaml --config limit=3", True),
        ("--cores 2 -n", False),
        ("-np", False),
        ("--dry-run", False),
        ("--unlock --cores 1", False),
        ("--profile slurm --rerun-incomplete", True),
        ("--cores 2 --lint", False),
        ("--summary", False),
    ],
)
def test_only_a_command_that_runs_jobs_takes_the_folder(line: str, expected: bool) -> None:
    assert run_lock.changes(line.split()) is expected


# Disks


def in_mounts(project: Path, script: str) -> None:
    """Run a shell script in the project with a mount namespace of its own. `run NAME ARGUMENTS...` is snakemake, which
    leaves NAME.log and NAME.rc in the project."""
    run = f'run() {{ n=$1; shift; r=0; {shlex.join(workflow.command())} "$@" >$n.log 2>&1 || r=$?; echo $r >$n.rc; }};'
    words = ["unshare", "-m", "bash", "-euc", run + script]
    out = subprocess.run(
        words, cwd=project, env=workflow.environment(), capture_output=True, text=True, check=False, timeout=1200
    )
    assert out.returncode == 0, out.stderr


@needs_mounts
def test_a_full_disk_is_named_and_costs_only_what_did_not_fit(unbroken: Path, tmp_path: Path) -> None:
    project = mini.make(tmp_path / "project")
    in_mounts(
        project,
        "mkdir results; mount -t tmpfs -o size=500k tmpfs results; run full --keep-going;"
        "if test -e results/tables/summary.parquet; then echo aggregated >> full.log; fi;"
        "mount -o remount,size=1g results; run more --rerun-incomplete; cp -a results kept",
    )
    text = (project / "full.log").read_text()
    assert (project / "full.rc").read_text().strip() == "1", text
    assert "the disk is full" in text and "free some space" in text
    assert "aggregated" not in text
    assert (project / "more.rc").read_text().strip() == "0", (project / "more.log").read_text()
    (project / "results").rmdir()
    (project / "kept").rename(project / "results")
    mini.same(project, unbroken)
    reliability.seen(
        "the disk is full",
        "the job ends with an error that names the file or folder; no half-written file takes its place",
        "same tables; finished batches and checkpoints are used",
    )


@needs_mounts
def test_a_read_only_results_folder_is_refused(done: Path) -> None:
    (done / "results/report.html").unlink()
    in_mounts(done, "mount --bind results results; mount -o remount,bind,ro results; run refused")
    text = (done / "refused.log").read_text()
    assert (done / "refused.rc").read_text().strip() == "1"
    assert "results: 'results' cannot be written (Read-only file system" in text
    assert "rule report" not in text
    reliability.seen(
        "a read-only results folder", "refused before the first job, with the folder's name", "runs once it is writable"
    )


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results").write_text("")
    with pytest.raises(ImprintError, match="'results' cannot be written"):
        run_lock.hold("results")


# Broken files


def kill_when(project: Path, condition: Callable[[], object]) -> None:
    """Start a run, and kill all of it once something is so."""
    process = subprocess.Popen(
        workflow.command(),
        cwd=project,
        env=workflow.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    mini.wait(condition, "it was time to kill it", process=process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def resume(project: Path, *arguments: str) -> str:
    workflow.run(project, "--unlock")
    return workflow.run(project, "--rerun-incomplete", *arguments)


def test_a_truncated_checkpoint_is_named_and_left_out(unbroken: Path, tmp_path: Path) -> None:
    project = mini.make(tmp_path / "project")
    kill_when(project, lambda: len(mini.checkpoints(project)) >= 2)
    last = mini.checkpoints(project)[-1]
    weights = next(last.glob("*.safetensors"))
    size = weights.stat().st_size
    os.truncate(weights, size // 2)
    text = resume(project, "--until", "train_sft")
    assert f"{last.relative_to(project)} is damaged: {weights.name} has {size // 2} bytes instead of {size}" in text
    mini.same(project, unbroken, "arms/")
    reliability.seen(
        "a truncated checkpoint",
        "named and removed; the fit goes on from the one before it, or from its start",
        "same weights, to the bit",
    )


def test_a_corrupted_shard_is_named_and_asked_again(unbroken: Path, done: Path) -> None:
    for made in ("tables", *(f"{folder}/base" for folder in ("generations", "prompts", "scores"))):
        shutil.rmtree(done / "results" / made)
    shards = "results/generations/*/seed0/*.work/*/*.parquet"
    kill_when(done, lambda: list(done.glob(shards)))
    shard = sorted(done.glob(shards))[0]
    data = bytearray(shard.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    shard.write_bytes(data)
    text = resume(done)
    assert f"{shard.relative_to(done)} cannot be used" in text and "this batch is asked again" in text
    mini.same(done, unbroken)
    reliability.seen("a corrupted shard of responses", "named; its batch alone is asked again", "same tables")


@pytest.mark.parametrize(
    "file", ["datasets/constraints", "generations/base/seed0/constraints", "scores/base/seed0/constraints"]
)
def test_an_empty_table_is_named_and_never_aggregated(file: str, unbroken: Path, done: Path) -> None:
    path = done / "results" / f"{file}.parquet"
    path.write_bytes(b"")
    text = workflow.run(done, "--keep-going", check=False)
    assert f"results/{file}.parquet is not a readable Parquet file" in text
    for table in ("answers", "summary", "comparisons"):
        found = done / f"results/tables/{table}.parquet"
        assert not found.exists() or found.read_bytes() == (unbroken / f"results/tables/{table}.parquet").read_bytes()
    path.unlink()
    workflow.run(done, "--rerun-incomplete")
    mini.same(done, unbroken)
    reliability.seen(
        "a Parquet file of zero bytes",
        "the first job that reads it ends with an error that names it; nothing is aggregated from it",
        "same tables, once it is deleted as the message says",
    )


def test_a_half_written_table_is_named_too(done: Path) -> None:
    path = done / "results/scores/base/seed0/constraints.parquet"
    os.truncate(path, path.stat().st_size - 20)
    text = workflow.run(done, check=False)
    assert "results/scores/base/seed0/constraints.parquet is not a readable Parquet file" in text
    assert pq.ParquetFile(done / "results/scores/instruct/seed0/constraints.parquet").metadata.num_rows
