"""Running snakemake in a copy of the project, and reading what it did."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

import dry_run

VARYING = {"seconds", "cpu_seconds", "peak_memory_bytes", "tokens_per_second"}
"""Columns that may differ between equal runs."""


def environment() -> dict[str, str]:
    """The environment of a job of ours: passive threads, no user profile."""
    return {
        **os.environ,
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": "workflow/scripts",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]


def run(project: Path, *arguments: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Run snakemake to its end, with more variables in its environment; returns what it printed."""
    variables = environment() | (env or {})
    words = command(*arguments)
    if "-n" in arguments:
        status, text = dry_run.snakemake(project, words[words.index("snakemake") + 1 :], variables)
    else:
        out = subprocess.run(
            words, cwd=project, env=variables, capture_output=True, text=True, check=False, timeout=1800
        )
        status, text = out.returncode, out.stdout + out.stderr
    assert not check or status == 0, text
    return text


def planned(project: Path, *arguments: str) -> set[str]:
    """The jobs that a run would do now, as "rule" or "rule wildcard values"."""
    text = run(project, "-n", "--nocolor", *arguments)
    jobs = set()
    for block in re.split(r"\n(?=(?:local)?rule |(?:local)?checkpoint )", text)[1:]:
        name = re.match(r"(?:local)?rule (\w+):", block)
        assert name, block
        wildcards = re.search(r"\n    wildcards: (.*)", block)
        values = re.findall(r"\w+=([^,\n]+)", wildcards.group(1)) if wildcards else []
        jobs.add(" ".join([name.group(1), *values]))
    return jobs - {"all"}


def shorten(project: Path, rows: int = 8) -> None:
    """Keep the first rows of each bundled file, so that a whole run is a matter of a minute."""
    for path in (project / "resources/bundled").glob("*.jsonl"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:rows]))


def edit(project: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the project's config in place."""
    path = project / "config/config.yaml"
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def contents(project: Path) -> dict[str, Any]:
    """Every table and manifest of the results: Parquet files as columns (but those that vary), manifests as text."""
    results = project / "results"
    found: dict[str, Any] = {}
    for path in sorted(results.rglob("*.parquet")):
        name = str(path.relative_to(results))
        if name != "tables/costs.parquet":
            table = pq.read_table(path, partitioning=None)
            found[name] = table.select([c for c in table.column_names if c not in VARYING]).to_pydict()
    for path in sorted(results.rglob("manifest.json")):
        found[str(path.relative_to(results))] = path.read_text()
    return found
