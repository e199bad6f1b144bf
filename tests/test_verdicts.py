"""The lines at the end of a run."""

from __future__ import annotations

from pathlib import Path

from imprint.report import verdicts
from imprint.runtime import parquet, schemas


def test_every_primary_comparison_has_a_line_with_or_without_an_interval(tmp_path: Path) -> None:
    blank = dict.fromkeys(schemas.SCHEMAS["comparisons"].names)
    row = {**blank, "control": "base", "eval": "e1", "metric": "m", "family": "primary", "verdict": "tie", "n_pairs": 8}
    rows = [
        {**row, "arm": "wide", "difference": -0.25, "ci_low": -0.5, "ci_high": 0.125},
        {**row, "arm": "alike", "difference": 0.0},
        {**row, "arm": "failed", "verdict": "no data", "n_pairs": 0},
        {**row, "arm": "minor", "family": "secondary"},
    ]
    parquet.write(tmp_path / "tables/comparisons.parquet", "comparisons", rows)
    assert verdicts.text(str(tmp_path)).splitlines()[1:4] == [
        "  wide vs base on e1: tie  -0.250 [-0.500, +0.125]  n=8",
        "  alike vs base on e1: tie  +0.000 no interval  n=8",
        "  failed vs base on e1: no data",
    ]
    assert "minor" not in verdicts.text(str(tmp_path))


def test_a_run_to_an_earlier_file_has_nothing_to_say(tmp_path: Path) -> None:
    assert verdicts.text(str(tmp_path)) == ""
