"""What a job cost: from its record, and from Slurm's accounting where it knows every attempt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imprint.report import costs
from imprint.runtime import job_record, parquet, schemas

SACCT = (
    """7|100|03:20.500|||
""".replace("|||", "||billing=1,cpu=4,gres/gpu:a100=2,gres/gpu=2,mem=2G,node=1")
    + """7.batch|100|00:10.000|1000K|cpu=4
7.0|99|03:10.000|713492K|cpu=4,gres/gpu=2
8|50|1-00:00:01||cpu=4,mem=2G
8|30|00:01.000||cpu=4,mem=2G
"""
)


def test_sacct_is_read_by_job_with_the_memory_of_its_steps() -> None:
    found: dict = {}
    costs.add_accounting(found, SACCT)
    assert found["7"] == {
        "seconds": 100.0, "cpu_seconds": 200.5, "gpu_seconds": 200.0, "peak_memory_bytes": 713492 * 1024,
    }  # fmt: skip
    assert found["8"]["seconds"] == 80.0 and found["8"]["gpu_seconds"] == 0.0, "a job that was queued again ran twice"
    assert found["8"]["cpu_seconds"] == 86402.0 and found["8"]["peak_memory_bytes"] is None


@pytest.mark.parametrize(("text", "size"), [("713492K", 713492 * 1024), ("2G", 2**31), ("17", 17), ("", None)])
def test_sizes(text: str, size: int | None) -> None:
    assert costs.slurm_bytes(text) == size


def test_slurms_figures_are_taken_when_it_knows_every_attempt() -> None:
    slurm: dict = {}
    costs.add_accounting(slurm, SACCT)
    attempts = [
        {"slurm_job_id": "7", "gpus": 2},  # killed: it has no seconds of its own
        {
            **{"slurm_job_id": "8", "gpus": 2, "seconds": 11.0, "cpu_seconds": 20.0, "ended": True},
            **{"peak_memory_bytes": 5, "peak_gpu_memory_bytes": 9},
        },
    ]
    known = costs.of_job(attempts, slurm)
    assert (known["source"], known["attempts"], known["seconds"], known["gpu_seconds"]) == ("slurm", 2, 180.0, 200.0)
    assert known["peak_memory_bytes"] == 713492 * 1024 and known["peak_gpu_memory_bytes"] == 9
    unknown = costs.of_job([{**attempts[0], "slurm_job_id": "6"}, attempts[1]], slurm)
    assert (unknown["source"], unknown["seconds"], unknown["gpu_seconds"]) == ("record", 11.0, 22.0)
    assert (unknown["cpu_seconds"], unknown["peak_memory_bytes"]) == (20.0, 5)


def test_a_job_without_a_record_has_no_costs() -> None:
    found = costs.of_job([], {})
    assert found.pop("source") == "record"
    assert set(found.values()) == {None}


def test_a_row_for_each_job_that_ran_a_model(tmp_path: Path) -> None:
    dataset = str(tmp_path / "datasets/roles.parquet")
    generations = tmp_path / "generations/base/seed0/general.parquet"
    jobs = [("synthesize", 3, None, dataset), ("generate", 0, "general", str(generations))]
    spec = costs.Spec(
        jobs=[
            costs.Costed(
                stage=stage,
                arm="base",
                seed=seed,
                eval=ev,
                output=output,
                table="generations" if ev else None,
            )
            for stage, seed, ev, output in jobs
        ]
    )
    attempts = [tmp_path / f"datasets/{name}.attempts.parquet" for name in ("roles", "shuffled")]
    for path in attempts:
        parquet.write(path, "synthesis", [])
    blank = dict.fromkeys(schemas.SCHEMAS["generations"].names)
    blank |= {"arm": "base", "seed": 0, "eval": "general", "example_id": "0-0", "sample": 0}
    parquet.write(generations, "generations", [{**blank, "response_tokens": 5}, {**blank, "response_tokens": 6}])
    for record in (tmp_path / "datasets/roles.job.json", generations.with_suffix(".job.json")):
        with job_record.kept(record, gpus=2, threads=1):
            subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    out = {name: tmp_path / f"tables/{name}.parquet" for name in ("costs", "curves", "coefficients", "synthesis")}
    costs.run(spec=spec, manifests=[], synthesis=attempts, out=out)
    teacher, run = parquet.read(out["costs"], "costs").to_pylist()
    assert (teacher["arm"], teacher["seed"], teacher["stage"], teacher["device"]) == ("base", 3, "synthesize", "cpu")
    assert teacher["gpu_seconds"] == 2 * teacher["seconds"] > 0
    assert teacher["cpu_seconds"] > 0.05, "the CPU of a process that the job has started"
    assert 2**20 < teacher["peak_memory_bytes"] < 2**36, "in bytes"
    assert (run["stage"], run["eval"], run["tokens"]) == ("generate", "general", 11)
    assert run["tokens_per_second"] == 11 / run["seconds"]
