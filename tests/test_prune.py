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
    (arms / "own/seed1").symlink_to(outside)
    assert list(prune.entries(arms, r"\w+/seed\d+")) == [arms / "own/seed0"]
    assert list(prune.entries(arms, r"\w+")) == [arms / "own"], "a link is no work of the pipeline"
    assert list(prune.entries(arms / "linked", r"\w+")) == []


def test_nothing_is_deleted_while_a_run_is_going(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    unneeded = project / "resources/models/old-0123abcd"
    unneeded.mkdir(parents=True)
    (unneeded / "manifest.json").write_text('{"kind": "model", "files": {}}')
    (project / ".snakemake/locks").mkdir(parents=True)
    (project / ".snakemake/locks/0.output.lock").write_text("elsewhere/report.html\n")
    with pytest.raises(SystemExit, match=r"nothing was deleted: a run is going on in this folder"):
        prune.main(["--delete"])
    (project / ".snakemake/locks/0.output.lock").unlink()
    prune.main([])
    assert unneeded.is_dir(), "listing deletes nothing"
    prune.main(["--delete"])
    assert not unneeded.exists()
