"""The last lines of a failed run: a line for each job that has failed, with its cause and its log."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import pico
import workflow
from imprint.dag import failures

HOSTILE = "\x1b]0;owned\x07"
SHOWN = r"\x1b]0;owned\x07"
PREPARE = """
import os, signal
from imprint.runtime import frame
from imprint.runtime.errors import ImprintError

with frame.job(snakemake):
    match snakemake.wildcards.dataset:
        case "told":
            raise ImprintError("row 3 has no text: \\x1b]0;owned\\x07; write one")
        case "raised":
            raise OSError("no \\x1b]0;owned\\x07")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
"""
DATASETS = ("killed", "raised", "told")


def broken(project: Path) -> None:
    """A project whose model and whose three datasets cannot be made."""
    folder = pico.make(project / "resources/local/pico")
    (folder / "chat_template.jinja").write_text(f"{{{{ raise_exception('{HOSTILE}') }}}}")
    (project / "workflow/scripts/prepare.py").write_text(PREPARE)
    dataset = {"generated": "ifeval_format", "instructions": "all", "part": "test"}
    config = {
        "models": {"pico": {"path": "resources/local/pico"}},
        "datasets": {name: {**dataset, "n": n} for n, name in enumerate(DATASETS, 4)},
        "evals": {name: {"dataset": name, "score": "ifeval"} for name in DATASETS},
        "arms": {"base": {"model": "pico"}},
    }
    (project / "config/config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.workflow
def test_the_last_lines_of_a_failed_run(project: Path) -> None:
    broken(project)
    done = subprocess.run(
        workflow.command("--keep-going", "--quiet", "rules", "progress", "host"),
        cwd=project,
        env=workflow.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and "WorkflowError:" in lines[:-4], "they stand below Snakemake's own last lines"
    model, killed, raised, told = sorted(lines[-4:])
    prepare, log = "imprint: prepare, dataset ", "(log: results/logs/prepare/"
    assert told == f"{prepare}told: row 3 has no text: {SHOWN}; write one {log}told.log)"
    assert raised == f"{prepare}raised: OSError: no {SHOWN} {log}raised.log)"
    assert killed == f"{prepare}killed: killed by signal 9, probably out of memory {log}killed.log)"
    assert model.startswith("imprint: fetch_model, model pico-") and SHOWN in model and model.endswith(".log)")


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("score arm=a on h, n\nimprint: a/e: 1 failed\n\nimprint: score arm=a: no rows; a\nb\n", "no rows; a\nb"),
        ("score on h, n\n 5%\rTraceback (most recent call last):\n  File x\n    f()\nKeyError: 'k'\n", "KeyError: 'k'"),
        (
            "score on h, n\nTraceback (most recent call last):\n  f()\nKeyError: 'k'\n\nDuring handling:\n\n"
            "Traceback (most recent call last):\n  f()\nValueError: of two\nlines\n",
            "ValueError: of two",
        ),
        (
            "train on h, n\nTraceback (most recent call last):\n  f()\nRuntimeError: nan\n\nimprint: train: the "
            "process of the fit ended with exit status 1; what it printed says why\n",
            "RuntimeError: nan",
        ),
        ("score on h, n\nimprint: other: no rows\n", None),
        ("score on h, n\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_cause_in_a_log(log: str, cause: str | None) -> None:
    assert failures.written(log) == cause


@given(st.text(alphabet="imprint: on\n\rTraceback (most recent call last):\n x", max_size=200) | st.text())
def test_any_log_is_read(log: str) -> None:
    cause = failures.written(log)
    assert cause is None or "\r" not in cause


OOM = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch."


@pytest.mark.parametrize(
    ("said", "slurm", "fate"),
    [
        ("Command 'x' died with <Signals.SIGKILL: 9>.", "", "killed by signal 9, probably out of memory"),
        ("Command 'x' returned non-zero exit status 137.", "", "killed by signal 9, probably out of memory"),
        ("Command 'x' returned non-zero exit status 143.", "", "killed by signal 15"),
        ("Command 'x' returned non-zero exit status 1.", "", failures.GONE),
        ("", "", failures.GONE),
        ("SLURM-job '7' failed, SLURM status is: 'FAILED'.", OOM, "used more memory than it asked for"),
        ("SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'.", "", "used more memory than it asked for"),
        ("", "*** JOB 7 ON n1 CANCELLED AT 2026-01-01 DUE TO TIME LIMIT ***", "at its time limit"),
        ("", "*** JOB 7 ON n1 CANCELLED AT 2026-01-01 ***", "cancelled in Slurm"),
        ("MissingOutputException in rule x:\na.txt", "", "a.txt"),
    ],
)
def test_how_a_job_ended_that_said_nothing(tmp_path: Path, said: str, slurm: str, fate: str) -> None:
    own, of_slurm = tmp_path / "own.log", tmp_path / "7.log"
    own.write_text("score on h, n\nI was CANCELLED, says the model\n")
    of_slurm.write_text(slurm)
    assert fate in failures.fate(failures.Failed("score", {}, [own, of_slurm], said, grouped=False))


class Run:
    """What snakemake's logger says of a run, as a listener hears it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logger = folder, logging.Logger("run")
        self.heard = failures.Listener()
        self.logger.addHandler(self.heard)

    def says(self, event: str, **more: Any) -> None:
        self.logger.error("says", extra={"event": event, **more})

    def fails(self, number: int, log: str | None, indent: bool = False) -> None:
        path = self.folder / f"{number}.log"
        self.says("job_info", jobid=number, wildcards={"arm": f"a{number}", "seed": "0"})
        if log is not None:
            path.write_text(log)
        self.says("job_error", jobid=number, rule_name="score", rule_msg=None, log=[str(path)], indent=indent, aux={})

    def lines(self) -> list[str]:
        return failures.lines(list(self.heard.failed.values()), self.heard.began)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_a_job_that_was_repeated_with_success_has_not_failed(run: Run) -> None:
    run.fails(1, "score on h, n\n\nimprint: score: once\n")
    assert run.lines() == [f"score, arm a1, seed 0: once (log: {run.folder}/1.log)"]
    run.says("job_finished", job_id=1)
    assert run.lines() == []


def test_of_a_group_the_job_with_a_cause_is_told(run: Run) -> None:
    slurm = run.folder / "slurm.log"
    slurm.write_text(OOM)
    run.says("group_error", groupid="scores", aux_logs=[str(slurm)], job_error_info=[])
    run.fails(1, None, indent=True)
    run.fails(2, "score on h, n\n", indent=True)
    assert [line.split(" (log")[0].split(": ")[1][:14] for line in run.lines()] == ["ended by Slurm"] * 2
    run.fails(3, "score on h, n\n\nimprint: score: no rows\n", indent=True)
    assert run.lines() == [f"score, arm a3, seed 0: no rows (log: {run.folder}/3.log)"]


def test_the_log_of_an_earlier_run_is_not_read(run: Run) -> None:
    log = run.folder / "1.log"
    log.write_text("score on h, n\n\nimprint: score: long ago\n")
    os.utime(log, (time.time() - 60,) * 2)
    run.fails(1, None)
    assert run.lines() == [f"score, arm a1, seed 0: {failures.GONE} (log: {log})"]


def test_many_failures_are_counted(run: Run) -> None:
    for number in range(failures.TOLD + 2):
        run.fails(number, "score on h, n\n\nimprint: score: no rows\n")
    assert len(run.lines()) == failures.TOLD + 1 and run.lines()[-1].startswith("2 more jobs failed")


def test_they_are_told_when_the_process_ends(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    at_end: list[Any] = []
    monkeypatch.setattr(failures.atexit, "register", at_end.append)
    monkeypatch.setattr(failures, "Listener", lambda: run.heard)
    failures.tell_at_end(SimpleNamespace(logger_manager=run))
    run.fails(1, f"score on h, n\n\nimprint: score: {HOSTILE}\n")
    at_end[0]()
    assert capsys.readouterr().err == f"imprint: score, arm a1, seed 0: {SHOWN} (log: {run.folder}/1.log)\n"
