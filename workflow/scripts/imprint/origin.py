"""What a job's outputs are made from. The code must be what the run was planned with, from the job's start to its end.
Code, settings and inputs are written down beside the outputs, so that they go where the outputs go. (Snakemake's own
record, `.snakemake/metadata`, stays behind when results are moved, copied or shared; `adoption.py` makes it anew.)
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from imprint.errors import ImprintError
from imprint.identity import canonical, file_sha256, write_json

PLANNED = "IMPRINT_CODE"
"""Environment variable: the run's code, file -> beginning of its sha256. A Slurm job reads the Snakefile again, and
would plan itself with the files of that moment, but its environment is that of the process that planned the run."""

_job: dict[str, str] = {}  # the code of the job in this process


def beginning(file: Path) -> str:
    """What stands for a file's content in params: 12 of the 64 digits of its sha256."""
    return file_sha256(file)[:12]


def plan(files: list[Path], project: Path) -> None:
    """Take down the code of a run; its jobs are planned with it, wherever they are planned."""
    os.environ[PLANNED] = canonical({str(file.relative_to(project)): beginning(file) for file in files})


@cache
def planned() -> dict[str, str]:
    """File, relative to the project -> what it was when the run was planned; empty outside a run."""
    files: dict[str, str] = json.loads(os.environ.get(PLANNED, "{}"))
    return files


def begin(code: str | None) -> None:
    """Check a job's code (its params') before any of it is imported; `check_code` then does so again."""
    _job.clear()
    _job.update(json.loads(code or "{}"))
    check_code()


def check_code() -> None:
    """Raise ImprintError where the code is no longer what this job was planned with: its outputs would be taken for
    those of other code, and stay when the edit is undone."""
    edited = [name for name, content in _job.items() if not Path(name).is_file() or beginning(Path(name)) != content]
    if edited:
        raise ImprintError(
            f"{', '.join(edited)}: edited after this run was planned, so this job's outputs are removed; run again to "
            "make them with the code as it is then"
        )


def path_for(output: Path) -> Path:
    """Where it is written down what an output was made from: beside it."""
    return output.with_name(f"{output.name}.made.json")


def write(snakemake: Any) -> None:
    """Write down what the job at hand has made its outputs from. Nothing in it varies between equal runs."""
    made = {
        "rule": snakemake.rule,
        "params": {name: str(value) for name, value in snakemake.params.items()},
        "inputs": {str(path): file_sha256(Path(path)) for path in snakemake.input},
    }
    for output in map(Path, snakemake.output):
        write_json(path_for(output), {**made, "output": str(output), "sha256": file_sha256(output)})


def read(output: Path, results: str) -> dict[str, Any] | None:
    """What `write` has left of an output; None where that is missing, or of another content. Paths in a
    results folder that has been renamed are given under its present name, `results`."""
    within = str(output).removeprefix(f"{results}/")
    try:
        made: dict[str, Any] = json.loads(path_for(output).read_text(encoding="utf-8"))
        former = made["output"].removesuffix(within)
        if made["sha256"] != file_sha256(output) or former == made["output"]:
            return None
        if former:
            made["params"] = {name: _moved(value, former, results) for name, value in made["params"].items()}
            made["inputs"] = json.loads(_moved(json.dumps(made["inputs"]), former, results))
        return made
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _moved(text: str, former: str, results: str) -> str:
    """JSON text with the paths of one folder as those of another."""
    return text.replace(f'"{former}', f'"{results}/')
