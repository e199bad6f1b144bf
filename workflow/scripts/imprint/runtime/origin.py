"""What a job's outputs are made from: code, settings and inputs.

The code must stay as the run was planned with it, from the job's start to its end. Code, settings and inputs are
written down in a file beside each output, so that they move with the output. Snakemake's own record
(`.snakemake/metadata`) stays behind when results are moved, copied or shared; `dag/adoption.py` then makes it anew from
the file beside the output.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from imprint.runtime import parsed
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import canonical, file_sha256, fingerprint, write_json
from imprint.runtime.schemas import SCHEMAS

PLANNED = "IMPRINT_CODE"
"""Environment variable with the code of a run: JSON of file -> `parsed.read(file).sha256`. A Slurm job reads the
Snakefile again and would plan itself with the files of that moment. It inherits the environment of the process that
planned the run, so it takes the hashes from there."""

TABLE = "table "
"""Prefix of a table's name, where a mapping of files also holds the schemas of tables."""
_job: dict[str, str] = {}  # the code that the job in this process was planned with


def schema(table: str) -> str:
    """The hash of a table's schema, as params have it: 12 hex digits."""
    return fingerprint(str(SCHEMAS[table]))[:12]


def plan(files: list[Path], project: Path) -> None:
    """Put the hashes of `files` and of all schemas into the environment. All jobs of the run are planned with these
    hashes, on whichever machine."""
    code = {str(file.relative_to(project)): parsed.read(file).sha256 for file in files}
    parsed.save()
    os.environ[PLANNED] = canonical(code | {f"{TABLE}{name}": schema(name) for name in SCHEMAS})
    planned.cache_clear()


@cache
def planned() -> dict[str, str]:
    """File (relative to the project) or table -> its hash when the run was planned; empty outside a run."""
    hashes: dict[str, str] = json.loads(os.environ.get(PLANNED, "{}"))
    return hashes


def begin(code: str | None) -> None:
    """Check `code`, the job's param of that name, before any of the code is imported. `check_code` can then repeat the
    check."""
    _job.clear()
    _job.update(json.loads(code or "{}"))
    check_code()


def check_code() -> None:
    """Raise ImprintError where the code is no longer what this job was planned with. Otherwise outputs of the edited
    code would be recorded as made by the planned code, and would be kept when the edit is undone."""
    edited = [name for name, planned_hash in _job.items() if _hash_now(name) != planned_hash]
    if edited:
        raise ImprintError(
            f"{', '.join(edited)}: edited after this run was planned, so this job's outputs are removed; run again to "
            "make them with the code as it is then"
        )


def _hash_now(name: str) -> str | None:
    """The present hash of a file or a table; None where there is no such file or table."""
    if name.startswith(TABLE):
        table = name.removeprefix(TABLE)
        return schema(table) if table in SCHEMAS else None
    return parsed.read(Path(name)).sha256 if Path(name).is_file() else None


def path_for(output: Path) -> Path:
    """The file beside an output that says what the output was made from."""
    return output.with_name(f"{output.name}.made.json")


def write(snakemake: Any) -> None:
    """Write beside each output of the running job what it was made from: the rule, its params, and the sha256 of each
    input. Equal runs write equal files."""
    record = {
        "rule": snakemake.rule,
        "params": {name: str(value) for name, value in snakemake.params.items()},
        "inputs": {str(path): file_sha256(Path(path)) for path in snakemake.input},
    }
    for output in map(Path, snakemake.output):
        write_json(path_for(output), {**record, "output": str(output), "sha256": file_sha256(output)})


def read(output: Path, results: str) -> dict[str, Any] | None:
    """What `write` has written beside an output. None where that file is missing or broken, or describes another
    content. Where the results folder was renamed since, paths are given below its present name, `results`."""
    within = str(output).removeprefix(f"{results}/")
    try:
        record: dict[str, Any] = json.loads(path_for(output).read_text(encoding="utf-8"))
        former = record["output"].removesuffix(within)
        if record["sha256"] != file_sha256(output) or former == record["output"]:
            return None
        if former:
            record["params"] = {name: _moved(value, former, results) for name, value in record["params"].items()}
            record["inputs"] = json.loads(_moved(json.dumps(record["inputs"]), former, results))
        return record
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _moved(text: str, former: str, results: str) -> str:
    """JSON text in which paths below the folder `former` are paths below `results`."""
    return text.replace(f'"{former}', f'"{results}/')
