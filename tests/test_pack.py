"""A pack is somebody else's file: what is not as `make pack` writes it is refused, and nothing is written."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint import pack, unpack
from imprint.dag import pack_form
from imprint.runtime.errors import ImprintError

TABLE = "results/tables/answers.parquet"
CONFIG = "config/unpacked-a.yaml"
CONTENT = {CONFIG: b"seeds: [0]\n", TABLE: b"PAR1 and so on"}
Change = Callable[[dict[str, Any]], None]


def manifest(content: dict[str, bytes]) -> dict[str, Any]:
    files = {name: {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()} for name, text in content.items()}
    return {
        **{"form": pack_form.FORM, "results": "results", "configs": [CONFIG], "settings": [], "commit": ""},
        **{"code": pack_form.code_sum(), "missing": 0, "files": files},
    }


def plain(name: str, text: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(text)
    return member, text


def special(name: str, kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member, b""


def write(path: Path, head: dict[str, Any], members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member, text in [plain(pack_form.MANIFEST, json.dumps(head).encode()), *members]:
            archive.addfile(member, io.BytesIO(text))
    return path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(path: Path, checkout: Path, message: str) -> None:
    before = {entry: entry.read_bytes() for entry in checkout.parent.rglob("*") if entry.is_file()}
    folders = {entry for entry in checkout.parent.rglob("*") if entry.is_dir()}
    with pytest.raises(ImprintError, match=message):
        unpack.unpack(path)
    assert {entry: entry.read_bytes() for entry in checkout.parent.rglob("*") if entry.is_file()} == before
    assert {entry for entry in checkout.parent.rglob("*") if entry.is_dir()} == folders


def test_a_sound_pack_is_unpacked_once(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(checkout.parent / "a.tar", manifest(CONTENT), [plain(*item) for item in CONTENT.items()])
    unpack.unpack(path)
    assert {name: (checkout / name).read_bytes() for name in CONTENT} == CONTENT
    assert "snakemake -n --configfile config/unpacked-a.yaml" in capsys.readouterr().out
    assert not list(checkout.glob(".unpacking-*"))


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/cron.d/a.txt", "../a.txt", "results/../../a.txt", "results/tables/../a.txt", "./results/tables/a.txt"),
        *("results//tables/a.txt", "results\\tables\\a.txt", "results/tables/.hidden.txt", "results/other/a.txt"),
        *("workflow/scripts/imprint/a.json", "Makefile", "config/config.yaml", "config/other.yaml", "tests/a.json"),
        *("resources/catalog.yaml", "resources/report.html.jinja", "results/tables/a.py", "results/tables/a.pkl"),
        *("resources/models/a/pytorch_model.bin", "results/tables/a\n.txt", "results/tables/a\x1b.txt", ""),
        "profiles/default/config.yaml",
    ],
)
def test_a_path_that_no_pack_may_write(checkout: Path, name: str) -> None:
    content = CONTENT | {name: b"x"}
    path = write(checkout.parent / "a.tar", manifest(content), [plain(*item) for item in content.items()])
    refused(path, checkout, "no path of a file that a pack may hold|lies outside the folders")


@given(st.text(alphabet="./\\~ab\x00-", max_size=30))
def test_an_allowed_path_stays_below_its_folder(text: str) -> None:
    for name in (f"results/tables/{text}.txt", f"{text}/a.txt", f"resources/{text}.json"):
        try:
            pack_form.check_path(name, "results", [CONFIG])
        except ImprintError:
            continue
        inside = Path("/p", name).resolve().relative_to("/p")
        assert inside.as_posix() == name and inside.parts[0] in ("results", "resources")


@pytest.mark.parametrize("configs", [["config/config.yaml"], ["results/tables/answers.parquet"], ["Makefile"], []])
def test_a_config_has_a_name_of_its_own(checkout: Path, configs: list[str]) -> None:
    content = CONTENT | dict.fromkeys(configs, b"x")
    head = manifest(content) | {"configs": configs}
    path = write(checkout.parent / "a.tar", head, [plain(*item) for item in content.items()])
    refused(path, checkout, "lies outside the folders|no path of a file|another form")


@pytest.mark.parametrize("results", ["/tmp/results", "..", "results/..", "workflow", "results/a b", ""])
def test_another_results_folder(checkout: Path, results: str) -> None:
    path = write(checkout.parent / "a.tar", manifest(CONTENT) | {"results": results}, [])
    refused(path, checkout, "not below results/")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_a_member_that_is_no_plain_file(checkout: Path, kind: bytes) -> None:
    head = manifest(CONTENT | {TABLE: b""})
    path = write(checkout.parent / "a.tar", head, [plain(CONFIG, CONTENT[CONFIG]), special(TABLE, kind, "/etc/passwd")])
    refused(path, checkout, "no plain file")


def more_bytes(head: dict[str, Any]) -> None:
    head["files"][TABLE]["size"] = 2**50


def another_hash(head: dict[str, Any]) -> None:
    head["files"][TABLE]["sha256"] = "0" * 64


def another_form(head: dict[str, Any]) -> None:
    head["form"] = 99


def unknown_key(head: dict[str, Any]) -> None:
    head["run"] = "rm"


def another_size(head: dict[str, Any]) -> None:
    head["files"][TABLE]["size"] -= 1


def one_file_more(head: dict[str, Any]) -> None:
    head["files"]["results/tables/b.json"] = {"size": 0, "sha256": "0" * 64}


def one_file_less(head: dict[str, Any]) -> None:
    del head["files"][TABLE]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (more_bytes, "more than it has"),
        (another_hash, "another sha256"),
        (another_form, "form 99"),
        (unknown_key, "another form"),
        (another_size, "bytes, its manifest says"),
        (one_file_more, "its end"),
        (one_file_less, "does not name"),
    ],
)
def test_a_manifest_that_does_not_fit_the_files(checkout: Path, change: Change, message: str) -> None:
    head = manifest(CONTENT)
    change(head)
    path = write(checkout.parent / "a.tar", head, [plain(*item) for item in CONTENT.items()])
    refused(path, checkout, message)


def test_a_file_that_is_a_folder_too(checkout: Path) -> None:
    content = CONTENT | {"results/tables/b.json": b"x", "results/tables/b.json/c.json": b"x"}
    path = write(checkout.parent / "a.tar", manifest(content), [plain(*item) for item in content.items()])
    refused(path, checkout, "a file and a folder")


def test_headers_that_are_no_headers(checkout: Path) -> None:
    path = write(checkout.parent / "a.tar", manifest(CONTENT), [plain(*item) for item in CONTENT.items()])
    whole = path.read_bytes()
    for place in range(0, len(whole), 64):
        path.write_bytes(whole[:place] + b"\xff\x00-9=" + whole[place + 5 :])
        with suppress(ImprintError):  # bytes after the archive's end are of no meaning
            unpack.unpack(path)
            assert {name: (checkout / name).read_bytes() for name in CONTENT} == CONTENT
            shutil.rmtree(checkout / "results")
            shutil.rmtree(checkout / "config")


def test_a_compressed_pack_or_no_pack(checkout: Path) -> None:
    packed = write(checkout.parent / "a.tar", manifest(CONTENT), [plain(*item) for item in CONTENT.items()], "w:gz")
    refused(packed, checkout, "not a whole pack")
    (checkout.parent / "b.tar").write_bytes(b"no tar file" * 1000)
    refused(checkout.parent / "b.tar", checkout, "not a whole pack")
    refused(checkout.parent / "c.tar", checkout, "is no file")


def test_a_pack_that_was_cut_off(checkout: Path) -> None:
    content = {CONFIG: CONTENT[CONFIG], TABLE: b"x" * 5000}
    path = write(checkout.parent / "a.tar", manifest(content), [plain(*item) for item in content.items()])
    whole = path.read_bytes()
    for length in (100, 600, 1500, whole.index(b"x" * 5000) + 2500):
        path.write_bytes(whole[:length])
        refused(path, checkout, "not a whole pack|another form|more than it has|its end|another sha256")


def test_a_file_that_is_here_with_another_content(checkout: Path) -> None:
    (checkout / TABLE).parent.mkdir(parents=True)
    (checkout / TABLE).write_text("mine")
    path = write(checkout.parent / "a.tar", manifest(CONTENT), [plain(*item) for item in CONTENT.items()])
    refused(path, checkout, f"exist here with another content, and nothing is overwritten: {TABLE}")


def test_a_dangling_link_in_the_place_of_a_file(checkout: Path) -> None:
    (checkout / TABLE).parent.mkdir(parents=True)
    (checkout / TABLE).symlink_to(checkout.parent / "elsewhere")
    path = write(checkout.parent / "a.tar", manifest(CONTENT), [plain(*item) for item in CONTENT.items()])
    refused(path, checkout, "nothing is overwritten")


def test_other_code_and_missing_outputs_are_said(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = manifest(CONTENT) | {"code": "other", "commit": "abc\x1b", "missing": 3, "settings": ["limit=8; rm -r x"]}
    unpack.unpack(write(checkout.parent / "a.tar", head, [plain(*item) for item in CONTENT.items()]))
    said = capsys.readouterr().out
    assert "made with other code, of commit abc\\x1b. Jobs whose code differs will run again" in said
    assert "3 outputs" in said and "--config 'limit=8; rm -r x'" in said


def test_a_pack_is_never_overwritten(checkout: Path) -> None:
    (checkout / "a.tar").write_text("mine")
    with pytest.raises(SystemExit):
        pack.main(["--out", "a.tar", "--configfile", str(Path(__file__).parent.parent / "config/config.yaml")])
    assert (checkout / "a.tar").read_text() == "mine"


@pytest.mark.parametrize(
    ("main", "arguments", "said"),
    [
        (pack.main, ["--out="], "write `make pack OUT=FILE.tar`"),
        (unpack.main, [""], "write `make unpack PACK=FILE.tar`"),
    ],
)
def test_a_command_without_a_pack_says_what_to_write(
    checkout: Path, main: Callable[[list[str]], None], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        main(arguments)
