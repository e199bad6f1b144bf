"""`make watch`: the state of a run, from its lock, its outputs and the logs of its jobs."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import one_fit
from imprint import watch
from imprint.dag import run_lock
from imprint.runtime.identity import write_json

BEGUN = "train_sft arm=tuned seed=0 on vm, 2026-01-02 10:00:00\n"
BARS = (
    "\rtuned seed 0:   0%|          | 0/8 [00:00<?, ?step/s]"
    "\rtuned seed 0:  62%|██████▎   | 5/8 [01:42<00:55, 18.37s/step, loss=0.025, reward=0.719]"
)


@pytest.fixture
def folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose config has one fit and one eval."""
    monkeypatch.chdir(project)
    Path("config/config.yaml").write_text(yaml.safe_dump(one_fit()), encoding="utf-8")
    return project


def held() -> int:
    """Hold the results folder as a run does, since ten o'clock."""
    run = {
        "id": f"imprint-{'0' * 16}",
        "pid": os.getpid(),
        "started": None,
        "host": "vm",
        "user": "root",
        "folder": "/p",
    }
    Path("results").mkdir(exist_ok=True)
    descriptor = os.open(Path("results", run_lock.NAME), os.O_RDWR | os.O_CREAT)
    run_lock.write(descriptor, [run_lock.Run(**run, since="2026-01-02 09:59:59")])
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def log(stage: str, job: str, text: str) -> None:
    path = Path(f"results/logs/{stage}/{job}.log")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    watch.main(["--once", *words])
    return capsys.readouterr().out.splitlines()


def test_without_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys)
    assert lines[0] == "results: no run is going on"
    assert "  train              0 of 1" in lines
    assert said(capsys, "--limit", "8")[0] == "results/limit8: no run is going on"


def test_a_job_that_runs_says_how_far_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    descriptor = held()
    log("train", "tuned.seed0", BEGUN + BARS)
    lines = said(capsys)
    assert lines[0].startswith("results: root on vm, process ")
    assert "  train              0 of 1     1 runs" in lines
    assert "  train_sft arm=tuned seed=0: 5 of 8, 00:55 left, loss=0.025, reward=0.719" in lines
    assert lines[-1] == "  The time that is left is not known yet."
    os.close(descriptor)


def test_the_time_left_follows_from_finished_jobs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of two generations took 140 s; the other waits, and the fit needs 55 s more."""
    descriptor = held()
    log("train", "tuned.seed0", BEGUN + BARS)
    for path in ("generations/base/seed0/general.parquet", "prompts/base/seed0/general.parquet"):
        Path("results", path).parent.mkdir(parents=True, exist_ok=True)
        Path("results", path).touch()
    write_json(
        Path("results/generations/base/seed0/general.job.json"), {"attempts": [{"seconds": 140.0, "ended": True}]}
    )
    lines = said(capsys)
    assert "  generate           1 of 2" in lines
    assert lines[-1] == "  About 3 minutes are left, at 1 job at once."
    for path in ("generations", "prompts"):
        Path(f"results/{path}/base/seed0/general.parquet").rename(f"results/{path}/general.parquet")
    write_json(Path("results/arms/tuned/seed0/job.json"), {"attempts": [{"seconds": 140.0, "ended": True}]})
    Path("results/arms/tuned/seed0/manifest.json").touch()
    end = "at 1 job at once; not counted, since none has ended yet: generate."
    assert said(capsys)[-1] == f"  About 0 minutes are left, {end}"
    os.close(descriptor)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (BEGUN, "begins"),
        (BEGUN + BARS + "\nimprint: train_sft: the disk is full\n", "failed; its log says why"),
        (BEGUN + "Traceback is a word\n", "begins"),
        (BEGUN.replace("2026", "2025") + BARS, None),
        ("", None),
        ("\x1b[2J 50%| " * 1000, None),
    ],
)
def test_what_a_log_says(folder: Path, capsys: pytest.CaptureFixture[str], text: str, state: str | None) -> None:
    """A log of an earlier run says nothing of this one."""
    descriptor = held()
    log("train", "tuned.seed0", text)
    of_jobs = [line for line in said(capsys) if "arm=tuned" in line]
    assert of_jobs == ([] if state is None else [f"  train_sft arm=tuned seed=0: {state}"])
    assert not any("\x1b" in line for line in of_jobs)
    os.close(descriptor)


@pytest.mark.parametrize(
    ("clock", "expected"), [("00:55", 55), ("01:20", 80), ("1:01:20", 3680), ("?", None), ("", None)]
)
def test_clocks(clock: str, expected: float | None) -> None:
    assert watch.seconds(clock) == expected


def test_it_ends_with_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    descriptor = held()
    waits: list[Any] = []

    def end(seconds: float) -> None:
        waits.append(seconds)
        os.close(descriptor)

    monkeypatch.setattr(watch.time, "sleep", end)
    watch.main([])
    assert waits == [watch.EVERY]
    assert capsys.readouterr().out.splitlines()[-1].startswith("  report")
