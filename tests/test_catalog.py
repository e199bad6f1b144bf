"""Fetching: what is not the file of the catalog never takes its name."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from imprint.config import catalog
from imprint.runtime.errors import ImprintError

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


PAGE = "https://huggingface.co/datasets/owner/repo"


def hub(monkeypatch: pytest.MonkeyPatch, does: Callable[[Path], None]) -> list[tuple]:
    """A hub library whose download does something with the folder it is given; what it was asked for."""
    asked: list[tuple] = []

    def download(repo: str, name: str, *, token: str, repo_type: str, revision: str, local_dir: str) -> str:
        asked.append((repo, name, token, repo_type, revision))
        does(Path(local_dir, "file"))
        return str(Path(local_dir, "file"))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return asked


def test_a_gated_file_needs_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, lambda path: None)
    for token in (None, ""):
        monkeypatch.setenv("HF_TOKEN", token) if token is not None else monkeypatch.delenv("HF_TOKEN", raising=False)
        with pytest.raises(ImprintError, match=f"HF_TOKEN is not set; ask for access at {PAGE}"):
            catalog.fetch(entry(), tmp_path / "out/x", None, PAGE)
    assert not asked and not (tmp_path / "out/x").exists()


def test_a_gated_file_comes_from_the_hub_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    asked = hub(monkeypatch, lambda path: path.write_bytes(DATA))
    catalog.fetch(entry(), tmp_path / "out/x", mirror_of(tmp_path, DATA + b"other"), PAGE)
    assert (tmp_path / "out/x").read_bytes() == DATA
    assert asked == [("owner/repo", "data/test.jsonl", "hf_secret", "dataset", "0" * 40)]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hf_secret" in path.read_bytes()]
    hub(monkeypatch, lambda path: path.write_bytes(DATA[:-1]))
    with pytest.raises(ImprintError, match="is not the file of the catalog"):
        catalog.fetch(entry(), tmp_path / "out/y", None, PAGE)


def test_a_token_without_access_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    request = httpx.Request("GET", PAGE, headers={"authorization": "Bearer hf_secret"})
    for error, said in (
        (GatedRepoError("hf_secret", response=httpx.Response(403, request=request)), "has no access; ask for access"),
        (HfHubHTTPError("hf_secret", response=httpx.Response(401, request=request)), "holds a valid token"),
        (httpx.ConnectError("hf_secret"), "check the network"),
    ):

        def fail(path: Path, error: Exception = error) -> None:
            raise error

        hub(monkeypatch, fail)
        with pytest.raises(ImprintError, match=said) as caught:
            catalog.fetch(entry(), tmp_path / "out/x", None, PAGE)
        assert "hf_secret" not in str(caught.value) and caught.value.__suppress_context__


def test_every_entry_has_a_source() -> None:
    for name, item in catalog.load().items():
        assert all(bool(item.gated) != bool(file.mirror) for file in item.files.values()), name


def test_every_entry_has_a_reader() -> None:
    from imprint.runtime import plugins

    for name, item in catalog.load().items():
        assert item.reader in plugins.names("datasets"), name


@pytest.mark.skipif("IMPRINT_DATA_MIRROR" not in os.environ, reason="IMPRINT_DATA_MIRROR is not set")
def test_the_mirror_has_every_file_of_the_catalog(tmp_path: Path) -> None:
    for name, item in catalog.load().items():
        for file_name, file in () if item.gated else item.files.items():
            catalog.fetch(file, tmp_path / name / file_name, Path(os.environ["IMPRINT_DATA_MIRROR"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"commit": "main"}, "commit: found 'main'; write 40 hex digits, in quotes where all of them are digits"),
        ({"commit": 1234}, "commit: found 1234; write 40 hex digits, in quotes"),
        ({"sha256": None}, "sha256: found None; write 64 hex digits"),
        ({"bytes": "many"}, "bytes: found 'many'; "),
        ({"comit": "x"}, "comit: unknown key 'comit'; did you mean 'commit'?"),
    ],
)
def test_a_broken_entry_says_what_was_found_and_what_to_write(tmp_path: Path, change: dict, said: str) -> None:
    entries = yaml.safe_load(catalog.PATH.read_text(encoding="utf-8"))
    entry = next(entry for entry in entries.values() if entry["files"])
    file = next(iter(entry["files"]))
    entry["files"][file] |= change
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump({"mine": entry}), encoding="utf-8")
    with pytest.raises(ImprintError, match=re.escape(f"mine.files.{file}.{said}")):
        catalog.load(path)
