"""Where results come from, beside what decides them: config files, commit, local changes, machines. None of this is in
params, so nothing reruns when only this changes. Nothing of the environment is told, and no path outside the project.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from imprint.runtime.errors import shown

CONFIG = "IMPRINT_CONFIG"
"""Environment variable with what `config_files` returns. Each process that reads the Snakefile sets it, so a job has it
on whichever machine."""


def keep_config(files: Iterable[Path], overrides: Iterable[str]) -> None:
    """Put the names of a run's config files, and of the keys that its command line overrides, into the environment."""
    said = [_within(file, Path.cwd()) for file in files] + [f"--config {key}" for key in sorted(overrides)]
    os.environ[CONFIG] = json.dumps([shown(each) for each in said])


def config_files() -> list[str]:
    """The config files of the run that this job belongs to, relative to the project; of a file outside the project, its
    name. Then `--config KEY` for each key that the command line has overridden. Empty outside a run."""
    found: list[str] = json.loads(os.environ.get(CONFIG, "[]"))
    return found


def _within(file: Path, project: Path) -> str:
    """A path relative to the project; the name alone of a file outside."""
    path = Path(os.path.abspath(file))
    return str(path.relative_to(project)) if path.is_relative_to(project) else f"{path.name} (outside the project)"


def commit() -> str | None:
    """The commit of the project; None without git or outside a repository."""
    return (_git("rev-parse", "HEAD") or "").strip() or None


def changes() -> list[str]:
    """The files that differ from the commit or are not in it, but for those that git ignores, sorted."""
    listed = (_git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", ".") or "").split("\0")
    return sorted(shown(entry[3:]) for entry in listed if entry)


def _git(*arguments: str) -> str | None:
    """What git prints; None without git or outside a repository."""
    with suppress(OSError):
        command = ["git", "--no-optional-locks", *arguments]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        return done.stdout if done.returncode == 0 else None
    return None


def machine() -> dict[str, Any]:
    """This machine: host, os, cpu, cores, memory_bytes, gpus (names of those that the driver lists), python, torch."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    try:
        torch: str | None = version("torch")
    except PackageNotFoundError:
        torch = None
    return {
        "host": socket.gethostname(),
        "os": _os(),
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": pages * size,
        "gpus": [name for file in _gpus() if (name := _field(file, "Model"))],
        "python": platform.python_version(),
        "torch": torch,
    }


def words(of: dict[str, Any]) -> str:
    """A machine in one line. A record of another version may lack parts, which are left out."""
    gpus = [str(name) for name in of.get("gpus") or ()]
    counted = [f"{gpus.count(name)} × {name}" if gpus.count(name) > 1 else name for name in dict.fromkeys(gpus)]
    parts = [
        of.get("host"),
        of.get("cpu") and f"{of['cpu']} ({of.get('cores')} cores)",
        ", ".join(counted) or "no GPU",
        of.get("memory_bytes") and f"{of['memory_bytes'] / 2**30:.0f} GiB of memory",
        of.get("os"),
        of.get("python") and f"Python {of['python']}",
        of.get("torch") and f"torch {of['torch']}",
    ]
    return shown("; ".join(str(part) for part in parts if part))


def _os() -> str:
    with suppress(OSError):
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release()}"
    return platform.platform()


def _gpus() -> list[Path]:
    return sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))


def _field(file: Path, name: str) -> str | None:
    """The first value of a field in a file of lines `NAME : VALUE`; None where there is none."""
    with suppress(OSError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return None
