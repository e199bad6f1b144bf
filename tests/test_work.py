"""Work folders: kept for the same work, wiped for other work, and held by one process at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from imprint.dag import code
from imprint.runtime import work
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import write_json
from imprint.runtime.plugins import Strict

HOLD = """
import sys, time
from pathlib import Path
from imprint.runtime import work
with work.folder(Path(sys.argv[1]), "one", wait=0) as folder:
    (folder / "shard").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_same_work_finds_what_it_left(tmp_path):
    with work.folder(tmp_path / "job", "one") as folder:
        (folder / "shards").mkdir()
        (folder / "shards" / "0").write_text("done")
    with work.folder(tmp_path / "job", "one") as folder:
        assert (folder / "shards" / "0").read_text() == "done"


def test_other_work_finds_an_empty_folder(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    with work.folder(tmp_path / "job", "one") as folder:
        (folder / "shards").mkdir()
        (folder / "shards" / "0").write_text("done")
        (folder / "link").symlink_to(elsewhere)
    with work.folder(tmp_path / "job", "two") as folder:
        assert {path.name for path in folder.iterdir()} == {work.LOCK, work.FINGERPRINT}
    assert (elsewhere / "kept").exists(), "a link is removed, not followed"


def test_a_folder_whose_wipe_was_broken_off_is_wiped_again(tmp_path):
    with work.folder(tmp_path / "job", "one") as folder:
        (folder / "old").touch()
    (tmp_path / "job" / work.FINGERPRINT).unlink()
    with work.folder(tmp_path / "job", "one") as folder:
        assert not (folder / "old").exists()


def test_it_survives_an_exception_and_goes_when_removed(tmp_path):
    with pytest.raises(RuntimeError), work.folder(tmp_path / "job", "one") as folder:
        (folder / "shard").touch()
        raise RuntimeError
    with work.folder(tmp_path / "job", "one") as folder:
        assert (folder / "shard").exists()
        work.remove(folder)
    assert not (tmp_path / "job").exists()


def test_a_second_holder_is_told_who_holds_it_and_a_kill_lets_go(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "job")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    refused = pytest.raises(ImprintError, match=f"process {child.pid} on .*make resume")
    with refused, work.folder(tmp_path / "job", "one", wait=0.2):
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    with work.folder(tmp_path / "job", "one", wait=0) as folder:
        assert (folder / "shard").read_text() == "half"


def test_a_waiter_enters_when_the_holder_is_done(tmp_path):
    script = HOLD.replace("time.sleep(60)", "time.sleep(0.5); work.remove(folder)")
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "job")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    started = time.monotonic()
    with work.folder(tmp_path / "job", "one", wait=30) as folder:
        assert time.monotonic() - started > 0.2
        assert folder.is_dir() and not (folder / "shard").exists()
    child.wait()


class Spec(Strict):
    name: str


def test_an_identity_is_that_of_all_that_the_work_is_made_from(tmp_path):
    """Of files the content counts, in their order, of manifests the fingerprint, and of neither the path."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for file, text in (("data", "1"), ("other", "2")):
            (tmp_path / folder / file).write_text(text)
        manifest = {"kind": "full", "fingerprint": "0", "template_sha256": "0", "device": folder}
        write_json(tmp_path / folder / "manifest.json", manifest)
    data, other, copied = (tmp_path / path for path in ("a/data", "a/other", "b/data"))
    ours, theirs = (tmp_path / folder / "manifest.json" for folder in ("a", "b"))
    identity = work.identity(Spec(name="x"), [data, other], [ours], "{}", "cpu", "float32")
    assert identity == work.identity(Spec(name="x"), [copied, other], [theirs], "{}", "cpu", "float32")
    others = [
        work.identity(Spec(name="y"), [data, other], [ours], "{}", "cpu", "float32"),
        work.identity(Spec(name="x"), [other, data], [ours], "{}", "cpu", "float32"),
        work.identity(Spec(name="x"), [data, other], [], "{}", "cpu", "float32"),
        work.identity(Spec(name="x"), [data, other], [ours], '{"a.py":"0"}', "cpu", "float32"),
        work.identity(Spec(name="x"), [data, other], [ours], "{}", "cpu", "bfloat16"),
        work.identity(Spec(name="x"), [data, other], [ours], "{}"),
    ]
    copied.write_text("3")
    write_json(theirs, {"kind": "full", "fingerprint": "1", "template_sha256": "0"})
    others += [
        work.identity(Spec(name="x"), [copied, other], [ours], "{}", "cpu", "float32"),
        work.identity(Spec(name="x"), [data, other], [theirs], "{}", "cpu", "float32"),
    ]
    assert len({identity, *others}) == 1 + len(others)


def test_files_of_one_name_are_told_apart():
    """A job's code names each file by its whole path."""
    files = json.loads(code.code("train"))
    assert {f"workflow/scripts/imprint/{folder}/__init__.py" for folder in ("training", "models", "tables")} <= set(
        files
    )
