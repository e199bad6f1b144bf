"""The experiment in docs/own.md: it is loaded with files such as it names, and its rows can be scored."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import logs
from conftest import ROOT
from imprint.config import loading
from imprint.dag import leakage, scored_rows
from imprint.dag.experiment import Experiment
from imprint.dag.jobs import all_jobs

TEXT = (ROOT / "docs/own.md").read_text(encoding="utf-8")
ROWS = {
    "quiz": {"question": "What is 1 + 1?", "choices": ["1", "2", "3", "4"], "answer": 1},
    "short": {"instruction": "Why does it rain?", "output": "Vapour cools and falls.", "topic": "rain"},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the page names, below a home of their own."""
    for name in ("config", "resources"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, file in (("models/my-llama", "model"), ("adapters/capitals", "adapter_model")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / f"{file}.safetensors").touch()
    (tmp_path / "adapters/capitals/adapter_config.json").write_text("{}")
    (tmp_path / "data").mkdir()
    for name, row in ROWS.items():
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"data/{name}.parquet")
    logs.write(tmp_path / "logs/samples_quiz.jsonl", [logs.line(ROWS["quiz"]["question"], "2", acc=1.0)])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_experiment_is_sound_and_every_part_can_be_left_out(folder: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    raw = yaml.safe_load(block)
    config = loading.parse(raw)
    read: leakage.Cache = {}
    scored_rows.check(config, read)
    assert [len(leakage.readable(config, name, read) or []) for name in config.datasets] == [32, 1, 1]
    fitted = {name for name, _ in Experiment(config).fits}
    assert fitted == {"adapter", "trained", "summed", "further"}
    assert "theirs" in {job.arm for job in all_jobs(Experiment(config))["import_values"].jobs() if job is not None}
    for left_out in (["theirs"], ["adapter", "summed", "further"], ["trained", "summed"]):
        part = {**raw, "arms": {name: arm for name, arm in raw["arms"].items() if name not in left_out}}
        part["questions"] = {
            name: question for name, question in raw["questions"].items() if question["arm"] not in left_out
        }
        loading.parse(part)


def test_what_it_says_of_a_folder_that_moves(folder: Path) -> None:
    shutil.move(folder / "adapters/capitals", folder / "moved")
    (folder / "adapters/capitals").symlink_to(folder / "moved")
    loading.parse(yaml.safe_load(re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[0]))
