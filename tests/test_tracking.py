"""`track:` shows the curves of every fit as they come. It decides nothing, and its errors end no fit."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fitting
import pico
import pico_arms
import test_activations
import test_dpo
import test_grpo
import workflow
from conftest import ROOT, make_project, one_fit
from imprint import prune
from imprint.config import loading
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs
from imprint.methods import Fit
from imprint.runtime import parquet, plugins, tracking
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_json
from imprint.runtime.tracking import Tracking
from imprint.training.curves import Curves
from test_plugins import Add

LINES = '''
"""Writes a line for each step."""
import json

class Lines:
    def __init__(self, file):
        self.file = file

    def add(self, step, values):
        print(json.dumps([step, values]), file=self.file, flush=True)

    def close(self):
        print('"closed"', file=self.file)
        self.file.close()

def start(folder):
    return Lines((folder / "lines").open("w"))
'''
BROKEN = '''
"""Fails where its name says."""

class Broken:
    def add(self, step, values):
        FAILS("add", step)

    def close(self):
        FAILS("close", 0)

def FAILS(where, step):
    if (where, step) == AT:
        raise OSError(28, "No \\u2028space left")

def start(folder):
    FAILS("start", 0)
    (folder / "begun").touch()
    return Broken()
'''
TENSORBOARD = importlib.util.find_spec("tensorboard") is not None


@pytest.fixture
def lines(plug_in: Add) -> None:
    plug_in("trackers", "lines", LINES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a pico model."""
    return pico_arms.root(tmp_path_factory.mktemp("models") / "pico")


def told(folder: Path) -> Counter:
    """What the tracker `lines` was told: (step, quantity, value), each as often as it was."""
    text = (folder / "lines").read_text(encoding="utf-8").splitlines()
    steps = [line for line in map(json.loads, text) if line != "closed"]
    return Counter((step, name, value) for step, values in steps for name, value in values.items())


def in_table(rows: list[dict[str, Any]]) -> Counter:
    return Counter((row["step"], row["quantity"], row["value"]) for row in rows)


# What holds a tracker


def test_a_tracker_gets_each_step_and_is_closed(lines: None, tmp_path: Path) -> None:
    tracker = Tracking("lines", tmp_path / "new/track")
    assert not tracker.folder.exists(), "a fit without curves shows nothing"
    tracker.add(1, {"loss": 2.0, "reward/ifeval": 0.5})
    tracker.add(2, {"loss": 1.0})
    assert told(tracker.folder) == Counter([(1, "loss", 2.0), (1, "reward/ifeval", 0.5), (2, "loss", 1.0)])
    tracker.close()
    assert (tracker.folder / "lines").read_text().endswith('"closed"\n')


def test_no_tracker_writes_nothing(tmp_path: Path) -> None:
    tracker = Tracking("", tmp_path / "track")
    tracker.add(1, {"loss": 2.0})
    tracker.close()
    assert not tracker.folder.exists()


@pytest.mark.parametrize(("where", "step"), [("start", 0), ("add", 1), ("add", 2), ("close", 0)])
def test_an_error_is_told_once_and_ends_nothing(
    where: str, step: int, plug_in: Add, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    plug_in("trackers", "broken", BROKEN.replace("AT", repr((where, step))))
    tracker = Tracking("broken", tmp_path / "track")
    for number in (1, 2, 3):
        tracker.add(number, {"loss": 1.0})
    tracker.close()
    tracker.close()
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("imprint: warning: track: 'broken' failed in ") and "the fit goes on without it" in said
    assert "OSError: [Errno 28] No \\u2028space left" in said


def test_a_tracker_that_is_gone_or_has_no_place_ends_nothing(
    lines: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for tracker in (Tracking("nobody", tmp_path / "a"), Tracking("lines", tmp_path / "file")):
        (tmp_path / "file").write_text("mine")
        tracker.add(1, {"loss": 1.0})
        tracker.add(2, {"loss": 1.0})
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


# What goes to it


def test_curves_are_rows_and_go_on(lines: None, root: Path, tmp_path: Path) -> None:
    fit = tracked(fitting.job("sft", [root], tmp_path, data="d"))
    before = Curves(fit)
    before.add(1, {"loss": 3, "learning_rate": 0.5})
    before.add(2, {"loss": 2.0})
    before.add(2, {"validation_loss": 4.0})
    curves = Curves(tracked(fit))
    curves.go_on(before.rows)
    curves.add(3, {"loss": 1.0})
    curves.add(1, {"tokens": 7})
    curves.write()
    assert curves.of("loss") == [3.0, 2.0, 1.0]
    rows = fitting.table(fit, "curves")
    assert [(row["step"], row["quantity"]) for row in rows] == [
        (1, "loss"), (1, "learning_rate"), (1, "tokens"), (2, "loss"), (2, "validation_loss"), (3, "loss"),
    ]  # fmt: skip
    assert {(row["arm"], row["seed"]) for row in rows} == {("tuned", 0)}
    assert told(fit.tracking.folder) == in_table(rows)


def test_all_curves_go_through_one_place() -> None:
    """So no method can leave them out. Others only read the table."""
    writers = set()
    for path in plugins.PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            written = isinstance(node, ast.Call) and ast.unparse(node.func) == "parquet.write"
            if written and "'curves" in ast.unparse(node):
                writers.add(path.relative_to(plugins.PACKAGE).as_posix())
    assert writers == {"training/curves.py", "report/costs.py"}, "report/costs.py gathers the tables of all fits"


def tracked(fit: Fit, name: str = "lines") -> Fit:
    """The fit with a tracker that has not begun."""
    return replace(fit, tracking=Tracking(name, fit.out / tracking.FOLDER))


def sft(root: Path, out: Path) -> Fit:
    given = {"data": "d", "batch_size": 2, "max_length": 512, "checkpoint_steps": 2}
    return fitting.job("sft", [root], out, datasets={"d": fitting.dialogues()}, **given)


def composed(root: Path, out: Path, method: str, **settings: Any) -> Fit:
    arms = {name: pico_arms.full(root, out / name, seed) for seed, name in enumerate(("a", "b"))}
    given = {"vectors": ["a", "b"], "data": "d", "max_length": 512, **settings}
    return fitting.job(method, [root], out, datasets={"d": fitting.dialogues()}, arms=arms, **given)


def gates(root: Path, out: Path) -> Fit:
    given = {"data": "t", "validation": "t", "shots": 2, "prompts": 2, "steps": 3, "check_steps": 2}
    return fitting.job("head_gates", [root], out, datasets={"t": test_activations.PAIRS}, **given)


def direction(root: Path, out: Path) -> Fit:
    rows = {"d": test_activations.ROWS, "c": test_activations.ROWS[:3]}
    given = {**test_activations.SETS, "choose": {"c": "plain"}}
    return fitting.job("direction", [root], out, datasets=rows, **given)


GRPO = {"steps": 3, "checkpoint_steps": 2, "updates_per_rollout": 2, "completion_tokens": 8}
FITS: dict[str, tuple[Callable[[Path, Path], Fit], set[str]]] = {
    "sft": (sft, {"loss", "tokens"}),
    "dpo": (
        lambda root, out: test_dpo.job(root, out, checkpoint_steps=2, batch_size=2, max_length=256),
        {"loss", "reward_margin"},
    ),
    "grpo": (lambda root, out: test_grpo.job(root, out, **GRPO), {"loss", "reward"}),
    "atlas": (
        lambda root, out: composed(root, out, "atlas", batch_size=2, steps=3, checkpoint_steps=2, rows_at_once=2),
        {"loss"},
    ),
    "task_arithmetic": (lambda root, out: composed(root, out, "task_arithmetic", scale=[0.5, 1.0]), {"loss", "scale"}),
    "head_gates": (gates, {"loss", "validation_loss"}),
    "direction": (direction, {"loss_by_layer"}),
}


@pytest.mark.parametrize("method", FITS)
def test_what_is_tracked_is_the_table_and_a_second_attempt_doubles_nothing(
    method: str, lines: None, root: Path, tmp_path: Path
) -> None:
    make, quantities = FITS[method]
    fit = tracked(make(root, tmp_path))
    metrics = plugins.load("methods", method).fit(fit)
    fit.tracking.close()
    rows = fitting.table(fit, "curves")
    assert rows and told(fit.tracking.folder) == in_table(rows)
    assert quantities <= {row["quantity"] for row in rows}
    assert any(fit.folder.glob("checkpoint-*/complete.json")) == (method not in ("task_arithmetic", "direction"))
    again = tracked(fit)  # goes on from the checkpoint
    assert plugins.load("methods", method).fit(again) == metrics
    assert fitting.table(again, "curves") == rows and told(fit.tracking.folder) == in_table(rows)


def test_a_tracker_changes_no_weight(lines: None, root: Path, tmp_path: Path) -> None:
    plain, shown = sft(root, tmp_path / "plain"), tracked(sft(root, tmp_path / "shown"))
    assert plugins.load("methods", "sft").fit(plain) == plugins.load("methods", "sft").fit(shown)
    assert fitting.weights(plain) == fitting.weights(shown)
    assert (plain.out / "curves.parquet").read_bytes() == (shown.out / "curves.parquet").read_bytes()


# TensorBoard


@pytest.mark.skipif(not TENSORBOARD, reason="tensorboard is not installed")
def test_tensorboard_reads_one_curve_after_a_kill(root: Path, tmp_path: Path) -> None:
    import time

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def scalars(tag: str) -> list[tuple[int, float]]:
        read = EventAccumulator(str(tmp_path / "track"))
        read.Reload()
        return [(event.step, event.value) for event in read.Scalars(tag)]

    killed = Tracking("tensorboard", tmp_path / "track")
    for step in range(1, 8):
        killed.add(step, {"loss": 1.0, "reward/ifeval": 0.25})
    killed.close()
    (file,) = (tmp_path / "track").iterdir()
    assert len(scalars("loss")) == 7
    file.write_bytes(file.read_bytes()[:-5])  # the last record was being written
    time.sleep(1.1)  # the files' names have the second
    goes_on = Tracking("tensorboard", tmp_path / "track")
    for step in range(1, 10):
        goes_on.add(step, {"loss": 1.0 if step <= 5 else 2.0, "reward/ifeval": 0.5})
    goes_on.close()
    assert scalars("loss") == [(step, 1.0 if step <= 5 else 2.0) for step in range(1, 10)]
    assert scalars("reward/ifeval") == [(step, 0.5) for step in range(1, 10)]
    fit = tracked(sft(root, tmp_path / "fit"), "tensorboard")
    plugins.load("methods", "sft").fit(fit)
    fit.tracking.close()
    read = EventAccumulator(str(fit.tracking.folder))
    read.Reload()
    for name in ("loss", "tokens"):
        assert [event.value for event in read.Scalars(name)] == pytest.approx(fitting.curve(fit, name))


@pytest.mark.skipif(TENSORBOARD, reason="tensorboard is installed")
def test_a_config_that_lacks_tensorboard_is_told_how_to_install_it() -> None:
    with pytest.raises(ImprintError, match=r"^track: .*`\.venv/bin/pip install -c requirements\.lock tensorboard`"):
        loading.parse({**one_fit(), "track": "tensorboard"})


# The config


def test_a_missing_package_is_refused(plug_in: Add) -> None:
    plug_in("trackers", "odd", LINES + '\nPACKAGE = "no_such_package_here"\n')
    said = r"^track: .*'odd' needs the package no_such_package_here, which is not installed; write `\.venv/bin/pip inst"
    with pytest.raises(ImprintError, match=said):
        loading.parse({**one_fit(), "track": "odd"})
    plug_in("trackers", "even", LINES + '\nPACKAGE = "json"\n')
    assert loading.parse({**one_fit(), "track": "even"}).track == "even"


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ImprintError, match=r"^track: .*no trackers plug-in named 'tensorbord'; did you mean 'tensorb"):
        loading.parse({**one_fit(), "track": "tensorbord"})


def test_the_extra_installs_what_the_trackers_need() -> None:
    import tomllib

    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    needed = {plugins.load("trackers", name).PACKAGE for name in plugins.names("trackers")}
    assert set(extra["track"]) == needed - {""}


def test_it_is_in_nothing_that_makes_a_job_run_again(lines: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plain, shown = (all_jobs(Experiment(loading.parse({**one_fit(), **more}))) for more in ({}, {"track": "lines"}))
    for name, jobs in plain.items():
        for job in jobs.jobs():
            assert jobs.params(job) == shown[name].params(job) and jobs.inputs(job) == shown[name].inputs(job)
            assert jobs.code(job) == shown[name].code(job)
        assert jobs.outputs == shown[name].outputs


def test_what_is_tracked_goes_with_its_fit(lines: None, tmp_path: Path) -> None:
    fit = tmp_path / "arms/tuned/seed0"
    tracker = Tracking("lines", fit / tracking.FOLDER)
    tracker.add(1, {"loss": 1.0})
    tracker.close()
    assert prune.reason_to_stay(fit) == ""
    (fit / "notes").mkdir()
    assert "notes" in prune.reason_to_stay(fit)


# A run


def add_tracker(project: Path, name: str, text: str) -> None:
    (project / f"workflow/scripts/imprint/trackers/{name}.py").write_text(text, encoding="utf-8")


@pytest.mark.workflow
@pytest.mark.slow
def test_a_run_is_tracked_and_a_broken_tracker_fails_nothing(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    workflow.shorten(project)
    pico.make(project / "resources/local/pico")
    shutil.copy(ROOT / "tests/pico.yaml", project / "config/config.yaml")
    add_tracker(project, "lines", LINES)
    add_tracker(project, "broken", BROKEN.replace("AT", repr(("add", 2))))
    fit = project / "results/arms/instruct/seed0"
    target = "results/arms/instruct/seed0/manifest.json"
    workflow.run(project, target, "--config", "track=lines")
    manifest = read_json(fit / "manifest.json")
    rows = parquet.read(fit / "curves.parquet", "curves").to_pylist()
    assert rows and told(fit / tracking.FOLDER) == in_table(rows)
    assert (fit / "track/lines").read_text().endswith('"closed"\n')
    for settings in ((), ("--config", "track=broken")):
        assert workflow.planned(project, target, *settings) == set(), settings
    # Refitted with a tracker that fails, and then without one.
    workflow.run(project, target, "--config", "track=broken", "--forcerun", "train_sft")
    log = (project / "results/logs/train/instruct.seed0.log").read_text(encoding="utf-8")
    assert log.count("imprint: warning: track: 'broken' failed in results/arms/instruct/seed0/track (OSError") == 1
    assert read_json(fit / "manifest.json") == manifest
    assert parquet.read(fit / "curves.parquet", "curves").to_pylist() == rows
    workflow.run(project, target, "--forcerun", "train_sft")
    assert not (fit / "track").exists(), "no curve of an earlier fit is left"
    assert read_json(fit / "manifest.json") == manifest
