"""Fixtures: a copy of the project to run snakemake in, with a random pico model instead of a real one."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from imprint.runtime import plugins

ROOT = Path(__file__).parent.parent
PARTS = ("Snakefile", "rules", "workflow", "config", "resources", "profiles", "slurm")
CACHES = shutil.ignore_patterns("__pycache__")
IGNORED = shutil.ignore_patterns("__pycache__", "models", "data", "cache", "local", "answers")


sys.path.insert(0, str(Path(__file__).parent))

# How long an example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


def make_project(folder: Path) -> Path:
    """A fresh copy of what a run needs, without anything that a run made."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_symlink():
            (folder / part).symlink_to(source.readlink())
        elif source.is_dir():
            shutil.copytree(source, folder / part, ignore=IGNORED if part == "resources" else CACHES)
        else:
            shutil.copy2(source, folder / part)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run the workflow come first, so that no process is left with a long file at the end."""
    long = {item.path for item in items if item.get_closest_marker("workflow") or item.get_closest_marker("real")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A fresh copy of the project."""
    return make_project(tmp_path / "project")


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """`plug_in(kind, name, text)`: a plug-in of the test's own, beside the shipped ones; its code cannot be hashed."""
    shipped, own = plugins.names, dict[str, list[str]]()
    monkeypatch.setattr(plugins, "names", lambda kind: tuple(sorted({*shipped(kind), *own.get(kind, [])})))

    def add(kind: str, name: str, text: str) -> None:
        folder = tmp_path / "plugins" / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text(text)
        package = importlib.import_module(f"imprint.{kind}")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        own.setdefault(kind, []).append(name)
        importlib.invalidate_caches()

    yield add
    for cached in (plugins.load, plugins.path):
        cached.cache_clear()
    for kind, added in own.items():
        for name in added:
            if sys.modules.pop(f"imprint.{kind}.{name}", None):
                delattr(sys.modules[f"imprint.{kind}"], name)


def one_fit() -> dict[str, Any]:
    """A config, as read from YAML, of one eval and one fit whose rows are not the eval's."""
    return {
        "models": {"m1": {"hub": "a/b", "revision": "0" * 40}},
        "datasets": {"general": {"bundled": "general.jsonl"}, "dialogues": {"bundled": "dialogues.jsonl"}},
        "evals": {"general": {"dataset": "general", "score": "options"}},
        "arms": {
            "base": {"model": "m1"},
            "tuned": {"parent": "base", "fit": {"method": "sft", "data": "dialogues"}},
        },
    }
