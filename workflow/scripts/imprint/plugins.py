"""The one plug-in mechanism: the name in the config is the name of the module.

`method: sft` is `imprint/methods/sft.py`, `score: ifeval` is `imprint/scores/ifeval.py`, and so on. A plug-in is a
module with a pydantic class `Settings` (the keys it takes in the config) and the functions of its kind, which
`docs/architecture.md` lists. Plug-ins import without torch: heavy imports stand inside their functions, because the
Snakefile imports every plug-in that a config names in order to check its settings.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from imprint import origin
from imprint.errors import ImprintError
from imprint.identity import canonical

PACKAGE = Path(__file__).parent
PROJECT = PACKAGE.parent.parent.parent


class Strict(BaseModel):
    """Base of everything read from YAML: unknown keys are errors, values are not coerced, numbers are finite, instances
    are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False)


@cache
def names(kind: str) -> tuple[str, ...]:
    """The plug-ins of a kind, sorted."""
    return tuple(sorted(p.stem for p in (PACKAGE / kind).glob("[a-z]*.py")))


@cache
def path(kind: str, name: str) -> Path:
    """The file of a plug-in; unknown names raise an error that lists the known ones."""
    known = names(kind)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ImprintError(f"no {kind} plug-in named '{name}'; {hint}write one of: {', '.join(known)}")
    return PACKAGE / kind / f"{name}.py"


@cache
def load(kind: str, name: str) -> ModuleType:
    """Import a plug-in module by kind and name."""
    path(kind, name)
    return importlib.import_module(f"imprint.{kind}.{name}")


@cache
def constant(kind: str, name: str, variable: str) -> Any:
    """A literal of a plug-in, read without importing it: charts import a drawing library that only their jobs need."""
    for node in ast.parse(path(kind, name).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and variable in {ast.unparse(target) for target in node.targets}:
            return ast.literal_eval(node.value)
    raise ImprintError(
        f"{path(kind, name)} defines no {variable}; docs/architecture.md says what a {kind} module defines"
    )


INFRASTRUCTURE = frozenset(
    {
        *("catalog", "config", "errors", "identity", "plugins", "tables", "work"),
        *("job_record", "local_gpus", "origin", "placement", "processes", "run_lock", "runtime"),
    }
)
"""Modules that carry every job and decide nothing of what it computes: an edit there reruns nothing."""


_STOP = frozenset(PACKAGE / f"{name}.py" for name in (*INFRASTRUCTURE, "__init__"))


@cache
def imports(path: Path) -> frozenset[Path]:
    """A script or module and the files of the package that it imports, directly or not, but for the infrastructure.
    Their hashes are params of the job, which make it rerun when its code changes."""
    found, todo = set(), [path]
    while todo:
        here = todo.pop()
        if here in found:
            continue
        found.add(here)
        for node in ast.walk(ast.parse(here.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "imprint":
                module = PACKAGE.joinpath(*(node.module or "").split(".")[1:])
                named = [module, *(module / alias.name for alias in node.names)]
                files = [file for name in named for file in (name.with_suffix(".py"), name / "__init__.py")]
                todo += [file for file in files if file.is_file() and file not in _STOP]
    return frozenset(found)


@cache
def code(script: str, *modules: tuple[str, str]) -> str:
    """What a job runs, for its params: a rule's script and its plug-ins, (kind, name), each with the modules that it
    imports, as canonical JSON of file -> beginning of its sha256. So an edit reruns the job, and undoing it, a `touch`
    or a fresh checkout does not. (As inputs they would be four fifths of all files that snakemake follows.)"""
    files = imports(PACKAGE.parent / f"{script}.py")
    for kind, name in modules:
        files |= imports(path(kind, name))
    return canonical({str(file.relative_to(PROJECT)): _beginning(file) for file in files})


@cache
def _beginning(file: Path) -> str:
    return origin.planned().get(str(file.relative_to(PROJECT))) or origin.beginning(file)


def plan() -> None:
    """Take down all code as it is when a run starts."""
    origin.plan(sorted(PACKAGE.parent.rglob("*.py")), PROJECT)


def settings(kind: str, name: str, mapping: dict) -> Strict:
    """Settings that were valid once, read back from a job's params."""
    found: Strict = load(kind, name).Settings.model_validate_json(json.dumps(mapping))
    return found
