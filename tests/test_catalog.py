"""Fetching: what is not the file of the catalog never takes its name."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pytest

from imprint import catalog
from imprint.errors import ImprintError

DATA = b'{"question": "1 + 1?", "answer": "#### 2"}\n'


def entry(data: bytes = DATA, mirror: str = "sums/test.jsonl", path: str = "data/test.jsonl") -> catalog.CatalogFile:
    return catalog.CatalogFile(
        repo="owner/repo",
        commit="0" * 40,
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        mirror=mirror,
    )


def mirror_of(folder: Path, data: bytes, name: str = "sums/test.jsonl") -> Path:
    path = folder / "mirror" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return folder / "mirror"


def fails(file: catalog.CatalogFile, out: Path, mirror: Path | None, match: str) -> None:
    with pytest.raises(ImprintError, match=match):
        catalog.fetch(file, out, mirror)
    assert not out.exists()
    assert not out.parent.exists() or not list(out.parent.iterdir()), "nothing half-written stays"


def test_from_a_mirror(tmp_path: Path) -> None:
    out = tmp_path / "out/test.jsonl"
    catalog.fetch(entry(), out, mirror_of(tmp_path, DATA))
    assert out.read_bytes() == DATA


def test_from_a_compressed_mirror(tmp_path: Path) -> None:
    out = tmp_path / "out/test.jsonl"
    catalog.fetch(
        entry(mirror="sums/test.jsonl.gz"), out, mirror_of(tmp_path, gzip.compress(DATA), "sums/test.jsonl.gz")
    )
    assert out.read_bytes() == DATA


def test_another_file(tmp_path: Path) -> None:
    other = DATA.replace(b"2", b"3")
    fails(entry(), tmp_path / "out/x", mirror_of(tmp_path, other), "is not the file of the catalog")


def test_truncated(tmp_path: Path) -> None:
    fails(entry(), tmp_path / "out/x", mirror_of(tmp_path, DATA[:-5]), "may have been cut")


def test_too_long(tmp_path: Path) -> None:
    fails(entry(), tmp_path / "out/x", mirror_of(tmp_path, DATA * 2), "is not the file of the catalog")


def test_truncated_gzip(tmp_path: Path) -> None:
    mirror = mirror_of(tmp_path, gzip.compress(DATA)[:-9], "a.gz")
    fails(entry(mirror="a.gz"), tmp_path / "out/x", mirror, "cannot be fetched")


def test_missing_in_the_mirror(tmp_path: Path) -> None:
    fails(entry(mirror="sums/none.jsonl"), tmp_path / "out/x", mirror_of(tmp_path, DATA), "the mirror has no")


def test_a_mirror_path_that_leaves(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(DATA)
    fails(entry(mirror="../secret"), tmp_path / "out/x", mirror_of(tmp_path, DATA), "leaves")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "UPSTREAM", "http://127.0.0.1:9/{repo}/{commit}/{path}")
    fails(entry(), tmp_path / "out/x", None, "IMPRINT_DATA_MIRROR")


def test_a_path_that_needs_quoting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def opened(url: str, timeout: float) -> None:
        asked.append(url)
        raise OSError("stop")

    monkeypatch.setattr(catalog.urllib.request, "urlopen", opened)
    fails(entry(path="a folder/test#1.jsonl"), tmp_path / "out/x", None, "cannot be fetched")
    assert asked == [f"https://raw.githubusercontent.com/owner/repo/{'0' * 40}/a%20folder/test%231.jsonl"]


def test_every_entry_has_a_reader() -> None:
    from imprint import plugins

    for name, item in catalog.load().items():
        assert item.reader in plugins.names("datasets"), name


@pytest.mark.skipif("IMPRINT_DATA_MIRROR" not in os.environ, reason="IMPRINT_DATA_MIRROR is not set")
def test_the_mirror_has_every_file_of_the_catalog(tmp_path: Path) -> None:
    for name, item in catalog.load().items():
        for file_name, file in item.files.items():
            catalog.fetch(file, tmp_path / name / file_name, Path(os.environ["IMPRINT_DATA_MIRROR"]))
