"""The code that a job runs, as one of its params, so that an edit reruns the job.

Only code that decides a result counts. The folders config/, dag/ and runtime/ carry a job and do not decide what it
computes, so their files do not count. Of every other file the parsed code counts, without comments, docstrings and
imports for type checking (`runtime/parsed.py`). A job finds its plug-ins by name, not by an import, so the class of its
stage names them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from imprint.runtime import origin, parsed, plugins
from imprint.runtime.identity import canonical
from imprint.runtime.schemas import SCHEMAS

PROJECT = plugins.PACKAGE.parent.parent.parent
CARRIES = tuple(plugins.PACKAGE / folder for folder in ("config", "dag", "runtime"))
"""The folders whose code does not count."""


@cache
def imports(path: Path) -> frozenset[Path]:
    """A script or module, and all files of the package that it imports, directly or not, and that count. Python runs
    the `__init__.py` of a folder before any module in it, so these files are among them. For a plug-in, this file is
    the contract of its kind, with the defaults of the parts that the plug-in leaves out."""
    reached, todo = set[Path](), [path]
    while todo:
        module_file = todo.pop()
        if module_file in reached:
            continue
        reached.add(module_file)
        packages = [folder for folder in module_file.parents if plugins.PACKAGE in folder.parents]
        files = [folder / "__init__.py" for folder in packages]
        for name in parsed.read(module_file).imports:
            module = plugins.PACKAGE.joinpath(*name.split(".")[1:])
            files += [module.with_suffix(".py"), module / "__init__.py"]
        todo += [file for file in files if file.is_file() and not any(map(file.is_relative_to, CARRIES))]
    return frozenset(reached - {plugins.PACKAGE / "__init__.py"})


@cache
def code(script: str, modules: tuple[tuple[str, str], ...] = (), tables: tuple[str, ...] = ()) -> str:
    """The code of a job, as canonical JSON for its params.

    `script` is the rule's script, `modules` are the job's plug-ins as (kind, name), `tables` the names of its outputs,
    of which those that are no tables are left out. The JSON has file -> hash for the script, the plug-ins and all that
    these import, and `table NAME` -> hash of the schema. Inside a run the hashes are those of the plan.

    An edit reruns the job; an undone edit, a `touch` or a fresh checkout does not. (As inputs, these files would be
    four fifths of all files that Snakemake follows.)"""
    files = imports(plugins.PACKAGE.parent / f"{script}.py")
    for kind, name in modules:
        files |= imports(plugins.path(kind, name))
    planned = origin.planned()
    schemas = {f"{origin.TABLE}{name}": origin.schema(name) for name in tables if name in SCHEMAS}
    names = {str(file.relative_to(PROJECT)): file for file in files}
    code = {name: planned.get(name) or parsed.read(file).sha256 for name, file in names.items()}
    return canonical(code | {name: planned.get(name, content) for name, content in schemas.items()})


def plan() -> None:
    """Record the hashes of all code at the start of a run (`origin.plan`)."""
    origin.plan(sorted(plugins.PACKAGE.parent.rglob("*.py")), PROJECT)
