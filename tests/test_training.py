"""The training job around a method."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprint import training
from imprint.identity import read_json, write_json
from imprint.methods import Fit, ties


def test_tables_of_an_earlier_method_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm that was learned and is now merged by a rule has no coefficients and no loss any more."""
    root = tmp_path / "root.json"
    write_json(root, {"kind": "model", "fingerprint": "0", "template_sha256": "1"})
    out = tmp_path / "arm/manifest.json"
    out.parent.mkdir()
    for name in training.BESIDE:
        (out.parent / f"{name}.parquet").write_text("old")

    def fit(job: Fit) -> dict:
        (job.out / "curves.parquet").write_text("new")
        return {"kind": "full", "metrics": {}}

    monkeypatch.setattr(ties, "fit", fit)
    spec = {
        **{"arm": "merged", "seed": 0, "method": "ties", "settings": {"vectors": ["a1"]}, "dtype": "float32"},
        **{"context": {"name": "plain", "settings": {}}, "datasets": [], "runs": [], "limit": None},
        "arms": {"a1": [str(root)]},
    }
    training.run(
        spec=spec, manifests=[root], datasets=[], runs=[], code=[], out=out, threads=1, device="cpu",
    )  # fmt: skip
    assert {path.name for path in out.parent.iterdir()} == {"manifest.json", "curves.parquet"}
    assert (out.parent / "curves.parquet").read_text() == "new"
    assert read_json(out)["kind"] == "full"
