"""What a job cost: from its benchmark, from its record, and from Slurm's accounting where it knows every attempt."""

from __future__ import annotations

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
TIMES = {"seconds": 12.0, "cpu_seconds": 20.0, "peak_memory_bytes": 5}


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
        {"slurm_job_id": "8", "gpus": 2, "seconds": 11.0, "peak_gpu_memory_bytes": 9, "ended": True},
    ]
    known = costs.of_job(TIMES, attempts, slurm)
    assert (known["source"], known["attempts"], known["seconds"], known["gpu_seconds"]) == ("slurm", 2, 180.0, 200.0)
    assert known["peak_memory_bytes"] == 713492 * 1024 and known["peak_gpu_memory_bytes"] == 9
    unknown = costs.of_job(TIMES, [{**attempts[0], "slurm_job_id": "6"}, attempts[1]], slurm)
    assert (unknown["source"], unknown["seconds"], unknown["gpu_seconds"]) == ("benchmark", 12.0, 22.0)


def test_a_job_without_a_record_has_its_benchmark() -> None:
    found = costs.of_job(TIMES, [], {})
    assert found == {
        **TIMES,
        "gpu_seconds": None,
        "peak_gpu_memory_bytes": None,
        "attempts": None,
        "source": "benchmark",
    }


def test_a_row_for_each_job_that_ran_a_model(tmp_path: Path) -> None:
    dataset = str(tmp_path / "datasets/roles.parquet")
    generations = tmp_path / "generations/base/seed0/general.parquet"
    of_run = str(generations), "base.seed0.general"
    jobs = [("synthesize", 3, None, dataset, "roles"), ("generate", 0, "general", *of_run)]
    spec = costs.Spec(
        jobs=[
            costs.Costed(
                stage=stage,
                arm="base",
                seed=seed,
                eval=ev,
                output=output,
                benchmark=str(tmp_path / f"benchmarks/{stage}/{name}.tsv"),
                table="generations" if ev else None,
            )
            for stage, seed, ev, output, name in jobs
        ]
    )
    attempts = [tmp_path / f"datasets/{name}.attempts.parquet" for name in ("roles", "shuffled")]
    for path in attempts:
        parquet.write(path, "synthesis", [])
    blank = dict.fromkeys(schemas.SCHEMAS["generations"].names)
    blank |= {"arm": "base", "seed": 0, "eval": "general", "example_id": "0-0", "sample": 0}
    parquet.write(generations, "generations", [{**blank, "response_tokens": 5}, {**blank, "response_tokens": 6}])
    with job_record.kept(tmp_path / "datasets/roles.job.json", gpus=2, threads=1):
        pass
    for name in ("synthesize/roles", "generate/base.seed0.general"):
        path = tmp_path / f"benchmarks/{name}.tsv"
        path.parent.mkdir(parents=True)
        path.write_text("s\tmax_rss\tcpu_time\n2.0\t1.0\t4.0\n")
    out = {name: tmp_path / f"tables/{name}.parquet" for name in ("costs", "curves", "coefficients", "synthesis")}
    costs.run(spec=spec, manifests=[], synthesis=attempts, out=out)
    teacher, run = parquet.read(out["costs"], "costs").to_pylist()
    assert (teacher["arm"], teacher["seed"], teacher["stage"], teacher["device"]) == ("base", 3, "synthesize", "cpu")
    assert teacher["gpu_seconds"] >= 0 and teacher["seconds"] == 2.0 and teacher["peak_memory_bytes"] == 2**20
    assert (run["stage"], run["eval"], run["tokens"], run["tokens_per_second"]) == ("generate", "general", 11, 5.5)
