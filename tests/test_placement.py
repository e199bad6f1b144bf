"""Where jobs run: an arm's own resources, GPUs handed out one a job, and the record that a job leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from snakemake.exceptions import WorkflowError

import pico
import workflow
from conftest import make_project
from imprint.config import amounts, loading, schema
from imprint.dag import placement
from imprint.runtime import frame, job_record, local_gpus
from imprint.runtime.errors import ImprintError

GPU = """
import sys, time
from imprint.runtime import local_gpus
with local_gpus.held(int(sys.argv[1])) as mine:
    print(",".join(mine), flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a machine with three GPUs and lock files of its own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    return {**os.environ, "PYTHONPATH": str(Path(schema.__file__).parents[2])}


def holder(machine: dict[str, str], count: int, seconds: float) -> subprocess.Popen:
    words = [sys.executable, "-c", GPU, str(count), str(seconds)]
    return subprocess.Popen(words, env=machine, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_each_job_gets_a_gpu_of_its_own(machine: dict[str, str]) -> None:
    with (
        local_gpus.held(1) as first,
        local_gpus_elsewhere(machine, 1) as second,
        local_gpus_elsewhere(machine, 1) as third,
    ):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(first)
        assert sorted([*first, second, third]) == ["0", "1", "2"]


class local_gpus_elsewhere:
    """The GPUs that another process holds for the length of the block."""

    def __init__(self, machine: dict[str, str], count: int) -> None:
        self.process = holder(machine, count, 60)

    def __enter__(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __exit__(self, *args: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_job_waits_until_enough_are_free_and_a_killed_one_frees_its_own(
    machine: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(local_gpus, "POLL", 0.05)
    with local_gpus_elsewhere(machine, 2):
        other = holder(machine, 2, 0)
        time.sleep(0.5)
        assert other.poll() is None, "it must wait: only one of three is free"
    out, err = other.communicate(timeout=20)
    assert len(out.strip().split(",")) == 2
    assert "waiting for 2 of the GPUs 0, 1, 2" in err


def test_more_gpus_than_there_are_is_an_error(machine: dict[str, str]) -> None:
    with pytest.raises(ImprintError, match=r"gpu=4: this machine has 3 GPU\(s\) \(0, 1, 2\)"), local_gpus.held(4):
        pass


def test_no_gpu_at_all_is_an_error(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ImprintError, match=r"has 0 GPU\(s\); ask for fewer"), local_gpus.held(1):
        pass


@pytest.mark.parametrize(
    ("choice", "gpus", "asked"),
    [("auto", 1, "resources gpu=1"), ("cuda", 1, "engine.device: cuda"), ("cuda", 0, "engine.device: cuda")],
)
def test_a_gpu_that_torch_does_not_find_is_an_error(
    choice: str, gpus: int, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ImprintError, match=f"{asked} asks for a GPU, but torch .* finds none here"):
        frame.device(choice, gpus)


def test_auto_takes_a_gpu_where_the_job_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    found = [frame.device(*of) for of in (("auto", 0), ("auto", 1), ("cpu", 1), ("cuda", 0))]
    assert found == ["cpu", "cuda", "cpu", "cuda"]


@pytest.mark.workflow
def test_a_profile_with_gpus_stops_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "project")
    pico.make(project / "resources/local/pico")
    shutil.copy(Path(__file__).parent / "pico.yaml", project / "config/config.yaml")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    made = "results/generations/base/seed0/general.parquet"
    text = workflow.run(project, "--profile", "profiles/local", made, check=False)
    assert "generate arm=base seed=0 eval=general: resources gpu=1: this machine has 0 GPU(s)" in text
    assert not (project / made).exists()


def test_a_record_keeps_the_attempts_of_a_job_until_one_ends_well(tmp_path: Path) -> None:
    path = job_record.path_for(tmp_path / "arms/tuned/seed0/manifest.json")
    assert path.name == "job.json"
    for _ in range(2):
        with pytest.raises(RuntimeError), job_record.kept(path, 2, 4):
            raise RuntimeError
    with job_record.kept(path, 2, 4):
        killed = json.loads(path.read_text())["attempts"][-1]
        assert "seconds" not in killed, "a job that is killed here leaves an attempt without an end"
    attempts = job_record.read(path)
    assert [attempt.get("ended") for attempt in attempts] == [None, None, True]
    assert all(attempt["gpus"] == 2 and attempt["threads"] == 4 and attempt["seconds"] >= 0 for attempt in attempts)
    with job_record.kept(path, 1, 4):
        pass
    assert len(job_record.read(path)) == 1, "the last attempt had ended well: this is a new run"


def test_a_broken_record_is_nothing_to_stop_for(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text("{")
    assert job_record.read(path) == []
    with job_record.kept(path, 0, 1):
        pass
    assert len(job_record.read(path)) == 1


def test_an_unknown_resource_is_named() -> None:
    text = (Path(__file__).parent / "pico.yaml").read_text()
    raw = yaml.safe_load(text)
    raw["arms"]["base"]["resources"] = {"memory": 3}
    raw["models"] = {"pico": {"wheel": "tiny==1.0", "sha256": "0" * 64}}
    with pytest.raises(ImprintError, match=r"arms\.base\.resources.*memory"):
        loading.parse(raw)


OWN = {"gpu": 2, "nodes": 2, "threads": 3, "mem_mb": "700 * attempt", "slurm_partition": "large"}


@pytest.mark.workflow
def test_an_arms_own_resources_go_before_the_profiles(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    pico.make(project / "resources/local/pico")
    shutil.copy(Path(__file__).parent / "pico.yaml", project / "config/config.yaml")
    workflow.edit(project, lambda raw: raw["arms"]["instruct"].update(resources=OWN))
    workflow.edit(project, lambda raw: raw["arms"]["instruct"]["fit"].update(batch_size=4))  # a row for each GPU
    asked = {}
    for block in workflow.run(project, "-n", "--nocolor", "--profile", "slurm", "--executor", "local").split("\n["):
        if found := re.search(r"rule (train_sft|generate):.*arm=(\w+)", block, re.DOTALL):
            threads = re.search(r"threads: (\d+)", block)
            line = re.search(r"resources: (.*)", block)
            assert line, block
            resources = dict(pair.split("=", 1) for pair in line.group(1).split(", "))
            asked[found.groups()] = {**resources, "threads": threads.group(1) if threads else "1"}
    for rule in ("train_sft", "generate"):
        own, other = asked[rule, "instruct"], asked[rule, "shuffled"]
        assert (own["mem_mb"], own["slurm_partition"]) == ("700", "large")
        assert (other["gpu"], other["mem_mb"]) == ("1", "32000") and "slurm_partition" not in other
        assert own["runtime"] == other["runtime"], "what the arm does not name stays the profile's"
    of_nodes = {key: asked["train_sft", "instruct"].get(key) for key in ("gpu", "gres", "nodes", "tasks", "mpi")}
    assert of_nodes == {"gpu": "4", "gres": "gpu:2", "nodes": "2", "tasks": "2", "mpi": "srun"}
    assert asked["generate", "instruct"]["gpu"] == "2"
    for job in (("generate", "instruct"), ("train_sft", "shuffled")):
        assert not {"nodes", "mpi", "tasks", "tasks_per_gpu", "gres"} & asked[job].keys(), job
    refused = workflow.run(project, "-n", "--profile", "profiles/local", check=False)
    assert "arms.instruct.resources.gpu: found 2, but this profile has 1" in refused


@pytest.mark.parametrize("nodes", [0, "2 * attempt", True, 10**9])
def test_nodes_are_a_whole_number(nodes: int | str) -> None:
    assert amounts.checked({"nodes": 2}) == {"nodes": 2}
    with pytest.raises(ValueError, match=r"nodes: found .*; write a whole number, 1 or more"):
        amounts.checked({"nodes": nodes})


def test_the_gpus_of_all_nodes_count_against_the_cap() -> None:
    placement._refuse_above_cap({"large": {"gpu": 2, "nodes": 2}}, {"gpu": 4})
    with pytest.raises(WorkflowError, match=r"found 2, but this profile has 3 .* for 2 nodes together; ask for fewer"):
        placement._refuse_above_cap({"large": {"gpu": 2, "nodes": 2}}, {"gpu": 3})


def test_what_an_arm_may_ask_for_is_in_the_manual() -> None:
    manual = (Path(__file__).parent.parent / "config/README.md").read_text()
    assert all(name in manual for name in amounts.RESOURCES)


@pytest.mark.parametrize("amount", [1, "450 * attempt ** 2", "32000 * attempt", "2**3", "8000 + 4000 // 2", "1.5e3"])
def test_amounts_are_arithmetic_with_the_attempt(amount: int | str) -> None:
    assert amounts.checked({"mem_mb": amount}) == {"mem_mb": amount}


@pytest.mark.parametrize("amount", ["9**9**9", "(9**8)**8", "2**-1", "2**(attempt*100)", "1/0", "1e400", "-1", 0, "x"])
def test_what_is_none_or_never_ends_is_refused(amount: int | str) -> None:
    with pytest.raises(ValueError, match="mem_mb: found"):
        amounts.checked({"mem_mb": amount})
