"""The small experiment that faults are put to."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pico
import workflow
from conftest import make_project

HERE = Path(__file__).parent


def make(folder: Path) -> Path:
    """A fresh project with the experiment as its config."""
    workflow.shorten(make_project(folder))
    pico.make(folder / "resources/local/pico")
    shutil.copy(HERE / "mini.yaml", folder / "config/config.yaml")
    return folder


def same(broken: Path, unbroken: Path, part: str = "") -> None:
    """Assert that two projects hold the same tables and manifests, of all results or of a part such as "arms/"."""
    ours, theirs = (
        {name: value for name, value in workflow.contents(each).items() if name.startswith(part)}
        for each in (broken, unbroken)
    )
    assert ours.keys() == theirs.keys() and ours
    for name, value in theirs.items():
        assert ours[name] == value, name


def wait(
    condition: Callable[[], object], what: str, seconds: float = 600, process: subprocess.Popen | None = None
) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, f"the run ended before {what}"
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)


def checkpoints(project: Path) -> list[Path]:
    """The finished checkpoints of the fit, earliest first."""
    found = (project / "results/arms/instruct/seed0/work").glob("*/checkpoint-*/complete.json")
    return sorted((path.parent for path in found), key=lambda path: int(path.name.split("-")[1]))
