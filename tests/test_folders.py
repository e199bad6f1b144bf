"""Each folder of the package keeps what docs/architecture.md promises of it, as far as its imports show."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import pytest

from conftest import ROOT
from imprint.dag import code
from imprint.runtime import parsed, plugins

PACKAGE = plugins.PACKAGE
COMMANDS = {
    *("ask", "compare", "export", "gate", "manual", "pack", "partial", "plan", "prune", "resume", "score", "targets"),
    *("unpack", "watch"),
}
KINDS = {path.parent.name for path in PACKAGE.glob("*/__init__.py") if "\nCONTRACT = " in path.read_text()}
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
}
"""Module, without the package's name -> its file."""


def top(module: str) -> str:
    return module.split(".")[0]


def nodes(tree: ast.AST, inside: bool) -> Iterator[ast.AST]:
    """The statements of a module, with or without those inside functions."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if inside or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from nodes(node, inside)


@cache
def imports(module: str, inside: bool = True) -> frozenset[str]:
    """The modules of the package that a module imports, with or without what it imports in its functions. What is only
    imported for type checking is none of them."""
    tree = parsed.running(ast.parse(FILES[module].read_text(encoding="utf-8")))
    imported = set()
    for node in nodes(tree, inside):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "imprint":
            named = (node.module or "").removeprefix("imprint").removeprefix(".")
            names = [f"{named}.{alias.name}".removeprefix(".") for alias in node.names]
            imported |= {name if name in FILES else named for name in names} - {""}
    return frozenset(imported)


def importers(folder: str) -> set[str]:
    """The modules outside a folder that import from it, and the rules' scripts."""
    modules = {module for module in FILES if top(module) != folder and any(top(i) == folder for i in imports(module))}
    scripts = (PACKAGE.parent).glob("*.py")
    return modules | {script.name for script in scripts if re.search(rf"imprint\.{folder}\b", script.read_text())}


def test_every_import_is_of_a_module_that_is_there() -> None:
    for module in FILES:
        assert imports(module) <= FILES.keys() | {top(name) for name in FILES}, module
    assert len(FILES) > 150 and "config.graph" in imports("dag.experiment")


def test_the_ground_floor_imports_nothing_else_of_the_package() -> None:
    for module in FILES:
        if top(module) == "runtime":
            assert {top(each) for each in imports(module)} <= {"runtime"}, module


def test_the_config_imports_the_ground_floor_alone() -> None:
    for module in FILES:
        if top(module) == "config":
            assert {top(each) for each in imports(module)} <= {"runtime", "config"}, module


def test_no_job_imports_the_dag() -> None:
    assert importers("dag") <= COMMANDS


def test_no_job_reads_a_config() -> None:
    """But for the catalog and the hub, which say where fetched files come from."""
    assert importers("config") - COMMANDS - {m for m in FILES if top(m) == "dag"} == {
        "models.hub", "fetch_data.py", "fetch_hub.py"
    }  # fmt: skip
    assert {each for each in imports("models.hub") if top(each) == "config"} == {"config.catalog"}


def test_no_part_imports_a_command() -> None:
    for module in FILES:
        assert not imports(module) & COMMANDS, module


def test_plug_ins_are_loaded_by_name() -> None:
    """`plugins.load` compares a plug-in with its contract and fills in what it leaves out. Plug-ins take what they
    build on from each other. Beside them, merged weights are written as full ones, and `make prune` knows the files of
    an adapter."""
    named = {f"{kind}.{name}" for kind in KINDS for name in plugins.names(kind)}
    direct = {(module, each) for module in FILES if top(module) not in KINDS for each in imports(module) & named}
    assert direct == {("composition.writing", "artifacts.full"), ("prune", "artifacts.lora")}


def test_there_are_no_circles_of_modules() -> None:
    """When modules are loaded: what is imported inside a function comes later."""
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            packages = {".".join(module.split(".")[:depth]) for depth in range(1, module.count(".") + 1)}
            for each in sorted(imports(module, inside=False) | packages):
                if each in FILES:
                    visit(each, (*trail, module))
            done.add(module)

    for module in sorted(FILES):
        visit(module, ())


HEAVY = ("torch", "transformers", "peft", "trl", "polars", "altair", "duckdb", "lm_eval", "datasets", "scipy")
PLAN = """
import importlib, sys
from pathlib import Path

for module in {modules}:
    importlib.import_module("imprint." + module)

from imprint.config import loading
from imprint.dag import code, leakage, report_facts, scored_rows
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs

for name in {configs}:
    config = loading.load([Path(name)])
    scored_rows.check(config, leakage.check(config))
    for jobs in all_jobs(Experiment(config)).values():
        for job in jobs.jobs():
            jobs.inputs(job), jobs.params(job), jobs.code(job), jobs.arm
        jobs.files(), jobs.logs()
print([name for name in {heavy} if name in sys.modules])
"""


def loaded(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": "workflow/scripts"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_planning_a_run_imports_nothing_heavy() -> None:
    modules = sorted(module for module in FILES if top(module) in ("config", "dag", "runtime"))
    configs = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "config").rglob("*.yaml"))]
    assert loaded(PLAN.format(modules=modules, configs=configs, heavy=HEAVY)) == "[]"


LIGHT = ("tables", "scoring", "statistics", "report", "logs")


def test_plug_ins_and_what_makes_tables_import_without_what_runs_models() -> None:
    modules = sorted(module for module in FILES if top(module) in {*LIGHT, *KINDS} and not module.endswith("._drawing"))
    modules = [module for module in modules if module not in HELPERS_WITH_TORCH]
    program = (
        f"import importlib, sys\nfor module in {modules}:\n    importlib.import_module('imprint.' + module)\n"
        f"print([name for name in ('torch', 'transformers', 'altair') if name in sys.modules])"
    )
    assert loaded(program) == "[]"


HELPERS_WITH_TORCH = {"engines._cpu_attention"}
"""Helpers that their plug-in imports in a function."""


def test_what_carries_a_job_is_in_no_code() -> None:
    scripts = sorted(PACKAGE.parent.glob("*.py"))
    for path in (*scripts, *(plugins.path(kind, name) for kind in KINDS for name in plugins.names(kind))):
        for file in code.imports(path):
            assert not any(file.is_relative_to(PACKAGE / folder) for folder in ("config", "dag", "runtime")), path


PROBES = {
    "config/sources.py": 3,  # fields of a model, by names that the code lists
    "scoring/jail.py": 1,  # functions of the C library, by name
}


@pytest.mark.parametrize("part", ["config", "dag", "scoring", "policies", "training/rewards.py", "score.py"])
def test_nobody_asks_a_plug_in_what_it_has(part: str) -> None:
    """Its contract says so, and `plugins.load` fills in the defaults."""
    paths = sorted((PACKAGE / part).rglob("*.py")) if (PACKAGE / part).is_dir() else [PACKAGE / part]
    assert paths
    for path in paths:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        probes = [node.lineno for node in calls if ast.unparse(node.func) in ("hasattr", "getattr")]
        assert len(probes) == PROBES.get(path.relative_to(PACKAGE).as_posix(), 0), f"{path}: lines {probes}"


def test_every_folder_says_what_it_holds() -> None:
    for folder in sorted({top(module) for module in FILES if "." in module}):
        assert ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text())), folder


def test_the_files_of_the_package_are_all_modules() -> None:
    others = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert others == []
    assert not [path for path in PACKAGE.rglob("*.py") if not (path.parent / "__init__.py").is_file()]
