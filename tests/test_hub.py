"""Splits of dataset repositories: which files hold them, and how they are fetched, from a mirror and from the hub."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imprint import prune
from imprint.config import hub
from imprint.config.sources import Dataset
from imprint.datasets import _job as preparing
from imprint.runtime.errors import ImprintError
from imprint.tables import dataset_rows

COMMIT = "0123456789" * 4
COLUMNS = {"messages": {"user": "question"}, "reference": {"answer": "answer"}}


def spec(split: str = "train", config: str | None = None) -> hub.Spec:
    return hub.Spec(hub="owner/sums", revision=COMMIT, split=split, config=config)


def repository(mirror: Path, files: dict[str, str]) -> Path:
    root = mirror / "hub/owner/sums" / COMMIT
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return mirror


def line(question: str) -> str:
    return json.dumps({"question": question, "answer": "2"}) + "\n"


SHARDS = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"]
FOLDERS = ["harmless/train.jsonl.gz", "harmless/test.jsonl.gz", "helpful/train.jsonl.gz"]


@pytest.mark.parametrize(
    ("names", "split", "config", "chosen"),
    [
        (SHARDS, "train", None, SHARDS[:2]),
        (SHARDS, "test", None, SHARDS[2:]),
        (FOLDERS, "train", "helpful", FOLDERS[2:]),
        (FOLDERS, "train", None, [FOLDERS[0], FOLDERS[2]]),
        (["default/train/0000.parquet", "default/test/0000.parquet"], "test", "default", ["default/test/0000.parquet"]),
        (
            ["rows.csv", "more/rows.json", "README.md", "dataset_infos.json"],
            "train",
            None,
            ["more/rows.json", "rows.csv"],
        ),
        (["train_sft.jsonl", "train_prefs.jsonl"], "train_prefs", None, ["train_prefs.jsonl"]),
    ],
)
def test_the_files_of_a_split(names: list[str], split: str, config: str | None, chosen: list[str]) -> None:
    assert hub.of_split(spec(split, config), reversed(names), []) == chosen


@pytest.mark.parametrize(
    ("names", "split", "message"),
    [
        (
            ["my_train.csv", "my_test.csv"],
            "train",
            "no file is known to hold the split 'train'; it has: my_test.csv, my",
        ),
        (["dev.jsonl"], "validation", "no file is known to hold the split 'validation'; it has: dev.jsonl"),
        (["sums.py", "a.arrow"], "train", "it has: no data in .parquet"),
    ],
)
def test_a_split_that_no_file_names(names: list[str], split: str, message: str) -> None:
    with pytest.raises(ImprintError, match=message):
        hub.of_split(spec(split), names, [])


README = """---
license: mit
configs:
- config_name: main
  default: true
  data_files:
  - split: train
    path: main/a-*
  - split: test
    path: [main/b.jsonl, "main/c.jsonl"]
- config_name: other
  data_dir: others
  data_files: "*.jsonl"
---
# Sums
"""
NAMES = ["main/a-1.jsonl", "main/a-2.jsonl", "main/b.jsonl", "main/c.jsonl", "others/d.jsonl", "train.jsonl"]


def test_the_readme_says_which_files_hold_a_split(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README)
    configs = hub.configs_of(tmp_path / "README.md")
    assert hub.of_split(spec(), NAMES, configs) == NAMES[:2]
    assert hub.of_split(spec("test", "main"), NAMES, configs) == NAMES[2:4]
    assert hub.of_split(spec("train", "other"), NAMES, configs) == ["others/d.jsonl"]
    with pytest.raises(ImprintError, match="has no config 'none'; write `config:` with one of: main, other"):
        hub.of_split(spec("train", "none"), NAMES, configs)
    with pytest.raises(ImprintError, match="config 'main' has no split 'dev'; write one of: train, test"):
        hub.of_split(spec("dev"), NAMES, configs)
    with pytest.raises(
        ImprintError, match=r"is in 'main/a-1.arrow', which is not read; name the commit .*convert/parquet"
    ):
        hub.of_split(spec(), ["main/a-1.arrow"], configs)


@pytest.mark.parametrize("text", ["# Sums", "---\nlicense: mit\n---\n", "---\nconfigs: all\n---\n", "---\nno end"])
def test_a_readme_without_configs(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert hub.configs_of(tmp_path / "README.md") == []


def test_a_readme_that_is_an_attack(tmp_path: Path) -> None:
    nested = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    (tmp_path / "README.md").write_text(f"---\nconfigs: []\na0: &a0 x\n{nested}---\n")
    with pytest.raises(ImprintError, match=r"README.yaml.*over 100,000 values"):
        hub.configs_of(tmp_path / "README.md")


def test_a_split_is_fetched_and_its_rows_are_read(tmp_path: Path) -> None:
    files = {"train-1.jsonl": line("b?"), "train-0.jsonl": line("a?"), "test.jsonl": line("c?"), "sums.py": "raise"}
    mirror = repository(tmp_path / "mirror", files)
    manifest = tmp_path / "hub" / spec().folder / "manifest.json"
    hub.run(spec(), mirror, manifest)
    assert sorted(path.name for path in manifest.parent.iterdir()) == ["00000.jsonl", "00001.jsonl", "manifest.json"]
    written = json.loads(manifest.read_text())
    assert [file["path"] for file in written["files"].values()] == ["train-0.jsonl", "train-1.jsonl"]
    dataset = Dataset.model_validate({"hub": "owner/sums", "revision": COMMIT, "split": "train", "columns": COLUMNS})
    assert dataset.split == spec() and dataset.plugin == "columns"
    job = preparing.Spec(
        dataset="sums", source="hub", name="owner/sums", plugin="columns", settings=dataset.settings.model_dump()
    )
    preparing.run(job, [manifest], ["numeric"], tmp_path / "sums.parquet")
    rows = dataset_rows.read(tmp_path / "sums.parquet")
    assert [row["messages"][0]["content"] for row in rows] == ["a?", "b?"]
    assert rows[0]["reference"] == {"answer": "2"}
    (manifest.parent / "00001.jsonl").write_text(line("changed?"))
    with pytest.raises(ImprintError, match=r"00001.jsonl is not as it was fetched; delete .* and run again"):
        preparing.run(job, [manifest], [], tmp_path / "sums.parquet")


def test_a_mirror_without_the_repository(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    with pytest.raises(ImprintError, match=f"the mirror has no .*hub/owner/sums/{COMMIT}; put the repository's files"):
        hub.run(spec(), tmp_path / "mirror", tmp_path / "out/manifest.json")
    outside = tmp_path / "outside.jsonl"
    outside.write_text(line("?"))
    mirror = repository(tmp_path / "mirror", {"test.jsonl": ""})
    (mirror / "hub/owner/sums" / COMMIT / "train.jsonl").symlink_to(outside)
    with pytest.raises(ImprintError, match="leaves"):
        hub.run(spec(), mirror, tmp_path / "out/manifest.json")


class Hub:
    """The hub's client, with one file. `sha256` is what the hub says of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, sha256: str | None = None) -> None:
        from huggingface_hub.hf_api import RepoFile

        self.asked: list[Any] = []
        self.names = ["train.jsonl", "sums.py", "../../train.jsonl"]
        (folder / "train.jsonl").write_text(line("a?"))
        lfs = None if sha256 is None else SimpleNamespace(sha256=sha256)
        remote = object.__new__(RepoFile)
        vars(remote).update(path="train.jsonl", lfs=lfs)

        def download(repository: str, name: str, **kind: str) -> str:
            self.asked.append((repository, name, kind["repo_type"], kind["revision"]))
            return str(folder / "train.jsonl")

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: self.names)
        monkeypatch.setattr("huggingface_hub.HfApi.get_paths_info", lambda *_, **__: [remote])


def test_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Hub(monkeypatch, tmp_path)
    hub.run(spec(), None, tmp_path / "out/manifest.json")
    assert client.asked[-1] == ("owner/sums", "train.jsonl", "dataset", COMMIT)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"00000.jsonl", "00001.jsonl", "manifest.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "train.jsonl"], "no path of the hub is followed"


def test_what_is_not_the_hubs_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, tmp_path, "0" * 64)
    with pytest.raises(ImprintError, match=r"came with sha256 .*, but the hub says 0000"):
        hub.run(spec(), None, tmp_path / "out/manifest.json")
    assert not (tmp_path / "out/manifest.json").exists()


def test_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", offline)
    with pytest.raises(ImprintError, match=rf"no route; .*HF_TOKEN.*MIRROR/hub/owner/sums/{COMMIT}"):
        hub.run(spec(), None, tmp_path / "out/manifest.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"revision": "main"}, "found 'main'; write the full commit, 40 hex digits"),
        ({"split": None}, "split"),
        ({"hub": "sums"}, "hub"),
        ({"hub": "../sums"}, "hub"),
        ({"reader": "jsonl"}, "reader"),
        ({"columns": None}, "columns"),
    ],
)
def test_a_repository_that_is_not_pinned(change: dict[str, Any], message: str) -> None:
    raw = {"hub": "owner/sums", "revision": COMMIT, "split": "train", "columns": COLUMNS, **change}
    with pytest.raises(ValueError, match=message):
        Dataset.model_validate({key: value for key, value in raw.items() if value is not None})


def test_prune_knows_a_fetched_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mirror = repository(
        tmp_path / "mirror", {"train.jsonl": line("a?"), "README.md": README.replace("main/a-*", "train.jsonl")}
    )
    folder = Path("resources/hub", spec().folder)
    hub.run(spec(), mirror, folder / "manifest.json")
    assert prune.unneeded([]) == [folder] and prune.reason_to_stay(folder) == ""
    (folder / "notes.txt").write_text("mine")
    assert "notes.txt" in prune.reason_to_stay(folder)
