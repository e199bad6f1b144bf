"""docs/reliability.md holds what the tests under tests/slurm have seen, and nothing else."""

from __future__ import annotations

import ast

import reliability
from conftest import ROOT


def test_each_row_is_one_that_a_test_writes() -> None:
    written = {}
    for path in (ROOT / "tests/slurm").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "reliability.seen":
                fault, happens, rerun = (ast.literal_eval(argument) for argument in node.args)
                written[fault] = f"| {fault} | {happens} | {rerun} |"
    found = reliability.found(reliability.DOC.read_text())
    assert found == written
