"""The tables of docs/reliability.md and docs/security.md hold what the tests have seen, and nothing else."""

from __future__ import annotations

import pytest

import reliability
import security
from conftest import ROOT
from doc_table import DocTable


@pytest.mark.parametrize(
    ("table", "folder", "call"),
    [(reliability.TABLE, "tests/slurm", "reliability.seen"), (security.TABLE, "tests/attacks", "security.seen")],
    ids=["reliability", "security"],
)
def test_each_row_is_one_that_a_test_writes(table: DocTable, folder: str, call: str) -> None:
    assert table.rows() == table.written(ROOT / folder, call)
