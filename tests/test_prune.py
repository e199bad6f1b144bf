"""What `make prune` may never touch: what lies behind a link, and what a run is working on."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprint import prune


def test_nothing_behind_a_link_is_looked_at(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "seed0").mkdir(parents=True)
    arms = tmp_path / "results/arms"
    (arms / "own/seed0").mkdir(parents=True)
    (arms / "linked").symlink_to(outside)
    assert list(prune.entries(arms, 2)) == [arms / "own/seed0"]
    assert sorted(prune.entries(arms, 1)) == [arms / "linked", arms / "own"], "a link itself may go"
    assert list(prune.entries(arms / "linked", 1)) == []


def test_nothing_is_deleted_while_a_run_is_going(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    unneeded = project / "resources/models/old"
    unneeded.mkdir(parents=True)
    (project / ".snakemake/locks").mkdir(parents=True)
    (project / ".snakemake/locks/0.output.lock").write_text("elsewhere/report.html\n")
    with pytest.raises(SystemExit, match=r"nothing was deleted: a run is going on in this folder"):
        prune.main(["--delete"])
    (project / ".snakemake/locks/0.output.lock").unlink()
    prune.main([])
    assert unneeded.is_dir(), "listing deletes nothing"
    prune.main(["--delete"])
    assert not unneeded.exists()
