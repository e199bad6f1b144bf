"""Rows of datasets: ids and clusters, as they are written and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import same_tables
from imprint.runtime import parquet
from imprint.tables import dataset_rows


def row(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def test_a_cluster_is_written_and_read(tmp_path: Path) -> None:
    rows = [row("a", cluster="letters"), row("b", cluster="letters"), row("1"), row("1"), row("2", example_id="two-0")]
    dataset_rows.write(tmp_path / "d.parquet", "d", rows, "0")
    again = dataset_rows.read(tmp_path / "d.parquet")
    ids = [one["example_id"] for one in again]
    assert [one["cluster"] for one in again] == ["letters", "letters", ids[2][:16], ids[2][:16], "two"]
    assert ids[2].endswith("-0") and ids[3] == f"{ids[2][:16]}-1", "equal rows are one cluster by default"
    dataset_rows.write(tmp_path / "again.parquet", "d", again, "0")
    assert parquet.read(tmp_path / "again.parquet", "datasets") == parquet.read(tmp_path / "d.parquet", "datasets")


def test_a_cluster_does_not_enter_the_id(tmp_path: Path) -> None:
    for name, more in (("with", {"cluster": "letters"}), ("without", {})):
        dataset_rows.write(tmp_path / name, "d", [row("a", **more)], "0")
    with_cluster, without = (dataset_rows.read(tmp_path / name)[0] for name in ("with", "without"))
    assert with_cluster["example_id"] == without["example_id"]


def test_a_new_column_is_named() -> None:
    before = {"d.parquet": {"example_id": ["0-0"]}, "same.parquet": {"value": [1]}, "manifest.json": "{}"}
    after = before | {"d.parquet": {"example_id": ["0-0"], "cluster": ["0"]}, "manifest.json": "{ }"}
    assert same_tables.differences(before, after) == {
        "d.parquet": "cluster (new)",
        "manifest.json": "its text or columns",
    }
