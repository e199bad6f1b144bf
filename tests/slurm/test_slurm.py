"""The pipeline on a real Slurm, and what the cluster may do to it. After every fault the tables, or the weights of the
fit, equal those of a run that nothing disturbed, and no job is left in the queue."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

import mini
import reliability
import workflow
from conftest import ROOT
from imprint.runtime import job_record, processes

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="a Slurm for the tests needs root"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="no Slurm: `make test-slurm` installs it"),
]

CLUSTER = str(ROOT / "tests/slurm/cluster.sh")
SITE = {
    # Jobs of seconds, on two real cores.
    r"first_look = \d+": "first_look = 4",
    r"train = dict\(.*\)": "train = dict(gpu=1, threads=1, mem_mb=2500, runtime=10)",
    r"generate = dict\(.*\)": "generate = dict(gpu=1, threads=1, mem_mb=2500, runtime=10)",
    r"synthesize = dict\(.*\)": "synthesize = dict(gpu=1, threads=1, mem_mb=2500, runtime=10)",
    r"tables = dict\(.*\) ": "tables = dict(mem_mb=2000, runtime=10) ",
    r"account = \"\"": 'account = "tests"',
    r"gpu_kind = \"\"": 'gpu_kind = "standin"',
}


def site(project: Path, changes: dict[str, str] = SITE) -> Path:
    """Set the profile's site block, as a site would."""
    path = project / "profiles/slurm/config.yaml"
    text = path.read_text()
    for pattern, value in changes.items():
        text, count = re.subn(rf"(?m)^(  - ){pattern}", rf"\g<1>{value}", text)
        assert count == 1, pattern
    path.write_text(text)
    return project


@pytest.fixture(scope="session", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    subprocess.run([CLUSTER, "start"], check=True, timeout=300)
    yield
    subprocess.run([CLUSTER, "stop"], check=True, timeout=120)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment without Slurm and without a break; it is also what the faults start from."""
    folder = site(mini.make(tmp_path_factory.mktemp("unbroken") / "project"))
    workflow.run(folder)
    return folder


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment on Slurm without a break. Two ranks share its fit."""
    folder = site(mini.make(tmp_path_factory.mktemp("shared") / "project"))
    workflow.edit(folder, lambda raw: raw["arms"]["instruct"].update(resources={"gpu": 2}))
    Run(folder).end()
    return folder


@contextmanager
def before_the_fit(finished: Path, folder: Path) -> Iterator[Path]:
    """A copy of a finished experiment with everything made but the fit and what follows from it."""
    shutil.copytree(finished, folder, symlinks=True)
    for made in ("arms", "tables", "charts", *(f"{part}/instruct" for part in ("generations", "prompts", "scores"))):
        shutil.rmtree(folder / "results" / made)
    for file in ("report.html", "imprint.duckdb"):
        (folder / "results" / file).unlink()
    try:
        yield folder
    finally:
        # Of a test that failed: its driver would submit again what is cancelled.
        subprocess.run([sys.executable, "-m", "imprint.resume"], cwd=folder, env=workflow.environment(), check=True)


@pytest.fixture
def project(unbroken: Path, tmp_path: Path) -> Iterator[Path]:
    with before_the_fit(unbroken, tmp_path / "project") as folder:
        yield folder


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def queue(project: Path, state: str = "") -> dict[str, str]:
    """Slurm job id -> comment (rule and wildcards) of this project's jobs in the queue."""
    rows = (line.split("|") for line in slurm("squeue", "-h", "-o", "%i|%Z|%k|%T").splitlines())
    return {row[0]: row[2] for row in rows if Path(row[1]) == project and state in row[3]}


def accounted(project: Path, rule: str) -> list[dict[str, str]]:
    """What Slurm's accounting has of this project's jobs of a rule, in the order of submission."""
    fields = ["JobIDRaw", "State", "ReqMem", "Timelimit", "ReqTRES", "WorkDir", "Comment"]
    text = slurm("sacct", "-X", "-n", "-P", "-S", "now-1days", "-D", "-o", ",".join(fields))
    rows = [dict(zip(fields, line.split("|"), strict=True)) for line in text.splitlines()]
    return [row for row in rows if Path(row["WorkDir"]) == project and row["Comment"].startswith(f"rule_{rule}")]


AFTER_THE_FIT = ("generate", "score", "summarize", "collect", "plot", "database", "report")
ONE_JOB = ["--groups", *(f"{rule}=tables" for rule in AFTER_THE_FIT)]
"""What follows from the fit as one Slurm job: the faults are put to the fit, and a job costs ten seconds by itself."""
THE_FIT = ["--until", "train_sft"]
"""The fit alone, for faults that nothing after it would notice."""


class Run:
    """A `snakemake --profile slurm` in a project."""

    def __init__(self, project: Path, *arguments: str) -> None:
        self.project, self.log = project, project / "run.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                # Where the tests themselves run in the background, a shell has them ignore SIGINT.
                ["env", "--default-signal=INT", sys.executable, "-m", "snakemake",
                 "--profile", "slurm", "--nocolor", *arguments],
                cwd=project, env=workflow.environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def training(self) -> str:
        """Wait until the fit has a checkpoint; returns its Slurm job."""
        mini.wait(lambda: mini.checkpoints(self.project), "the fit's first checkpoint", process=self.process)
        return next(number for number, comment in queue(self.project).items() if comment.startswith("rule_train_sft"))

    def end(self, expected: int = 0) -> str:
        """Wait for the end; returns what was printed."""
        try:
            code = self.process.wait(600)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            code = -9
        text = self.log.read_text()
        assert code == expected, text[-6000:]
        return text


def ended_well(project: Path, unbroken: Path) -> None:
    """The same tables, nothing left to do for a plain rerun, and no job left behind."""
    mini.same(project, unbroken)
    assert workflow.planned(project) == set()
    mini.wait(lambda: not queue(project), "an empty queue", 30)


def fitted_well(project: Path, unbroken: Path) -> None:
    """The same weights and curves, nothing left to do for the fit, and no job left behind."""
    mini.same(project, unbroken, "arms/")
    assert workflow.planned(project, *THE_FIT) == set()
    mini.wait(lambda: not queue(project), "an empty queue", 30)


def attempts(project: Path) -> list[dict]:
    return job_record.read(project / "results/arms/instruct/seed0/job.json")


def trainer(project: Path) -> int:
    """One of the processes that train, which the job has started."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve() == project.resolve():
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if "imprint.training.rank" in words and "python" in Path(words[0]).name:
                    return int(entry.name)
        except OSError:
            continue
    raise AssertionError("nothing trains")


def processes_of(job: str) -> dict[int, dict[str, str]]:
    """The processes of a Slurm job on all nodes of this machine, with their environments."""
    every = {pid: processes.environment(pid) for pid in processes.all_mine() if processes.started(pid) is not None}
    return {pid: variables for pid, variables in every.items() if variables.get("SLURM_JOB_ID") == job}


def begun_at(project: Path) -> int:
    """The step at which the last attempt at the fit began."""
    text = (project / "results/logs/train/instruct.seed0.log").read_text()
    first = re.search(r"instruct seed 0:[^/]*?(\d+)/\d+", text)
    assert first, text
    return int(first[1])


def test_the_whole_experiment_runs_on_slurm_with_a_gpu_a_rank(shared: Path, unbroken: Path) -> None:
    project, text = shared, (shared / "run.log").read_text()
    ours, theirs = workflow.contents(project), workflow.contents(unbroken)
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in ours if "/base/" in name or "datasets/" in name)
    losses = [each["arms/instruct/seed0/curves.parquet"]["value"] for each in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4), "two ranks learn what one learns but for rounding"
    assert not queue(project)
    for rule, of_jobs in (("train_sft", [2]), ("generate", [1, 2])):
        asked = sorted(int(re.findall(r"gres/gpu=(\d)", job["ReqTRES"])[0]) for job in accounted(project, rule))
        assert asked == of_jobs, rule
    assert all("gpu" not in job["ReqTRES"] for job in accounted(project, "check_leakage"))
    assert not accounted(project, "fetch"), "fetching stays where the run is"
    for group in ("data", "scores", "tables"):
        assert len(re.findall(rf"Group job {group}|group_{group}/", text)) >= 1, group
    assert len(set(re.findall(r"SLURM jobid (\d+)", text))) <= 10, "small jobs share a Slurm job"
    for record in sorted((project / "results").rglob("*job.json")):
        (attempt,) = job_record.read(record)
        if "datasets" not in record.parts:
            gpus = 2 if "instruct" in record.parts else 1
            assert attempt["slurm_job_id"] and attempt["gpus"] == gpus and attempt["device"] == "cpu"
            assert attempt["cuda_visible_devices"] in (("0", "1") if gpus == 1 else ("0,1",))
            assert attempt["ranks"] == gpus, "each of an arm's GPUs has its part of the fit and of the answers"
    for row in pq.read_table(project / "results/tables/costs.parquet").to_pylist():
        assert row["source"] == "slurm" and row["gpu_seconds"] > 0 and row["tokens"] > 0, row
        assert row["peak_memory_bytes"] > 10**8, "a process that has torch"
    assert workflow.planned(project) == set()


def test_a_cancelled_job_is_tried_again(project: Path, unbroken: Path) -> None:
    run = Run(project, *ONE_JOB)
    slurm("scancel", run.training())
    text = run.end()
    assert "SLURM status is: 'CANCELLED'" in text
    ended_well(project, unbroken)
    assert len(attempts(project)) == 2
    reliability.seen(
        "`scancel` of a training job",
        "the run says CANCELLED and submits it again; it goes on from its last checkpoint",
        "nothing left to do, same tables",
    )


def test_a_dead_rank_ends_its_fit(shared: Path, tmp_path: Path) -> None:
    with before_the_fit(shared, tmp_path / "project") as project:
        run = Run(project, *THE_FIT)
        run.training()
        os.kill(trainer(project), signal.SIGKILL)
        text = run.end()
        assert re.search(r"rank \d of the fit's 2 ranks was ended by SIGKILL", text), text[-5000:]
        fitted_well(project, shared)
        jobs = accounted(project, "train_sft")
        assert len(jobs) == 2 and all("gres/gpu=2" in job["ReqTRES"] for job in jobs), jobs
    reliability.seen(
        "one of the processes that share a fit dies",
        "the others end with it, and the job fails at once with its signal; it is submitted again and goes on from its "
        "last checkpoint",
        "nothing left to do, same weights, to the bit",
    )


def test_a_retry_asks_for_more_memory(project: Path, unbroken: Path) -> None:
    workflow.edit(project, lambda raw: raw["arms"]["instruct"].update(resources={"mem_mb": "450 * attempt ** 2"}))
    text = Run(project, *THE_FIT).end()
    assert "memory" in text.lower()
    jobs = accounted(project, "train_sft")
    assert [job["ReqMem"] for job in jobs] == ["450M", "1800M"] and jobs[-1]["State"] == "COMPLETED", jobs
    fitted_well(project, unbroken)
    reliability.seen(
        "a job is killed because it takes more memory than it asked for",
        "it is submitted again with the memory of its next attempt",
        "nothing left to do, same weights, to the bit",
    )


def test_retries_end_and_say_why(project: Path, unbroken: Path) -> None:
    site(project, {r"retries = \d+": "retries = 1"})
    workflow.edit(project, lambda raw: raw["arms"]["instruct"].update(resources={"mem_mb": 450}))
    text = Run(project, *THE_FIT).end(expected=1)
    assert len(accounted(project, "train_sft")) == 2
    assert re.search(r"(?i)exceeded.*memory|oom|memory limit", text), text[-5000:]
    assert not (project / "results/arms/instruct/seed0/manifest.json").exists()
    assert not queue(project)
    workflow.edit(project, lambda raw: raw["arms"]["instruct"].pop("resources"))
    Run(project, *THE_FIT).end()
    fitted_well(project, unbroken)
    reliability.seen(
        "a job fails on every attempt",
        "after the profile's `retries` the run ends, with the job's log and Slurm's reason on the screen",
        "same weights, to the bit, once the cause is removed",
    )


def test_a_retry_asks_for_more_time(project: Path, unbroken: Path) -> None:
    site(project, {r"train = dict\(.*\)": "train = dict(gpu=1, threads=1, mem_mb=2500, runtime=1)"})
    run = Run(project, *THE_FIT)
    run.training()
    os.kill(trainer(project), signal.SIGSTOP)  # it hangs; Slurm ends it when its minute is over
    text = run.end()
    assert "SLURM status is: 'TIMEOUT'" in text
    assert [job["Timelimit"] for job in accounted(project, "train_sft")] == ["00:01:00", "00:02:00"]
    assert len(attempts(project)) == 2
    fitted_well(project, unbroken)
    reliability.seen(
        "a job hits its time limit",
        "the run says TIMEOUT and submits it again with more time; it goes on from its last checkpoint",
        "nothing left to do, same weights, to the bit",
    )


def test_a_drained_node(project: Path, unbroken: Path) -> None:
    node = slurm("sinfo", "-h", "-p", "main", "-o", "%n").split()[0]
    run = Run(project, *ONE_JOB)
    run.training()
    slurm("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        mini.wait(
            lambda: (project / "results/arms/instruct/seed0/manifest.json").exists(),
            "the fit's end",
            process=run.process,
        )
        mini.wait(lambda: queue(project, "PENDING"), "a job that waits for the node", process=run.process)
    finally:
        slurm("scontrol", "update", f"nodename={node}", "state=resume")
    run.end()
    ended_well(project, unbroken)
    reliability.seen(
        "the node is drained while a fit runs",
        "the fit ends, later jobs wait until a node is there",
        "nothing left to do, same tables",
    )


def test_the_controller_is_restarted(project: Path, unbroken: Path) -> None:
    run = Run(project, *THE_FIT)
    run.training()
    subprocess.run([CLUSTER, "restart-controller", "10"], check=True, timeout=120)
    run.end()
    fitted_well(project, unbroken)
    reliability.seen(
        "slurmctld is restarted mid-run",
        "the run goes on asking until it is back",
        "nothing left to do, same weights, to the bit",
    )


def test_snakemake_is_killed(project: Path, unbroken: Path) -> None:
    run = Run(project, *ONE_JOB)
    job = run.training()
    os.kill(trainer(project), signal.SIGSTOP)  # it would end by itself before a slow machine has come to the resume
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    assert job in queue(project), "the cluster knows nothing of the kill"
    refused = Run(project, *ONE_JOB).end(expected=1)
    assert "was killed and has left its lock behind" in refused and "write `make resume PROFILE=" in refused
    for file in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / file, project)
    (project / ".venv").mkdir()
    (project / ".venv/made").touch()
    made = subprocess.run(
        ["make", "resume", "PROFILE=slurm", f"BIN={Path(sys.executable).parent}"],
        cwd=project, env=workflow.environment(), capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    assert f"cancelling Slurm job {job} (imprint-" in made.stdout
    ended_well(project, unbroken)
    reliability.seen(
        "snakemake is killed (SIGKILL)",
        "its jobs live on; a plain rerun is refused and names `make resume`",
        "`make resume` cancels them, unlocks and goes on from the checkpoints: same tables",
    )


def test_snakemake_is_interrupted(project: Path, unbroken: Path) -> None:
    run = Run(project, *THE_FIT)
    run.training()
    os.kill(run.process.pid, signal.SIGINT)
    run.end(expected=1)
    mini.wait(lambda: not queue(project), "an empty queue", 60)
    Run(project, *THE_FIT).end()
    fitted_well(project, unbroken)
    reliability.seen(
        "snakemake is interrupted (Ctrl-C, SIGINT)",
        "it cancels its jobs",
        "same weights, to the bit; the fit goes on from its last checkpoint",
    )


# Two nodes


@pytest.fixture
def paired(shared: Path, tmp_path: Path) -> Iterator[Path]:
    """The experiment before its fit, which is to have a rank on each of two nodes."""
    with before_the_fit(shared, tmp_path / "project") as folder:
        asked = {"gpu": 1, "nodes": 2, "slurm_partition": "pair"}
        workflow.edit(folder, lambda raw: raw["arms"]["instruct"].update(resources=asked))
        yield folder


def fitted_on_both(project: Path, shared: Path) -> None:
    """The last attempt had two nodes, and learned the bits that two ranks of one node learn."""
    last = attempts(project)[-1]
    assert (last["ranks"], last["nodes"], last["gpus"], last["device"]) == (2, 2, 2, "cpu")
    fitted_well(project, shared)


def on_both_nodes(job: str) -> int:
    """Assert that a job has a rank on each of two nodes; returns the process of the second one."""
    ranks = {each["RANK"]: (pid, each["SLURMD_NODENAME"]) for pid, each in processes_of(job).items() if "RANK" in each}
    assert sorted(ranks) == ["0", "1"] and ranks["0"][1] != ranks["1"][1], ranks
    return ranks["1"][0]


def test_two_nodes_fit_what_one_fits(paired: Path, shared: Path, unbroken: Path) -> None:
    Run(paired, *THE_FIT).end()
    fitted_on_both(paired, shared)
    assert len(attempts(paired)) == 1
    weights, of_one_rank = (
        load_file(each / "results/arms/instruct/seed0/weights/model.safetensors") for each in (paired, unbroken)
    )
    assert weights.keys() == of_one_rank.keys()
    assert all((weights[name] - tensor).abs().max() < 1e-6 for name, tensor in of_one_rank.items())
    (job,) = accounted(paired, "train_sft")
    assert "gres/gpu=2" in job["ReqTRES"] and "node=2" in job["ReqTRES"]
    steps = slurm("sacct", "-n", "-P", "-j", job["JobIDRaw"], "-o", "JobID,NodeList,State").splitlines()
    (whole, first, *launched) = [line.partition(".")[2] or line.partition("|")[2] for line in steps]
    nodes = slurm("sinfo", "-h", "-N", "-p", "pair", "-o", "%N").split()
    assert whole == f"{','.join(nodes)}|COMPLETED" and first == f"batch|{nodes[0]}|COMPLETED", steps
    assert launched == [f"0|{nodes[1]}|COMPLETED"], steps


def test_a_fit_on_two_nodes_is_broken_twice(paired: Path, shared: Path) -> None:
    """Its rank on the second node is killed, and then the next attempt is cancelled."""
    run = Run(paired, *THE_FIT)
    first = run.training()
    os.kill(on_both_nodes(first), signal.SIGKILL)
    mini.wait(lambda: not processes_of(first), "the job's end", 60)
    sealed = mini.checkpoints(paired)[-1]
    mini.wait(lambda: mini.checkpoints(paired)[-1] != sealed, "a checkpoint of the next attempt", process=run.process)
    assert sealed.name == f"checkpoint-{begun_at(paired)}"
    second = run.training()
    assert second != first
    on_both_nodes(second)
    slurm("scancel", second)
    mini.wait(lambda: not processes_of(second), "the end of all its processes", 20)
    sealed = mini.checkpoints(paired)[-1]
    text = run.end()
    assert "rank 1 of the fit's 2 ranks was ended by SIGKILL" in text, text[-5000:]
    assert "SLURM status is: 'CANCELLED'" in text
    assert len(attempts(paired)) == 3 and sealed.name == f"checkpoint-{begun_at(paired)}"
    fitted_on_both(paired, shared)
    reliability.seen(
        "one of the processes that share a fit dies, on the second of two nodes",
        "those on both nodes end with it, and the job fails at once with its signal; it is submitted again and goes on "
        "from its last checkpoint",
        "same weights, to the bit",
    )
    reliability.seen(
        "`scancel` of a fit on two nodes",
        "no process is left on either; the run submits it again, and it goes on from its last checkpoint",
        "same weights, to the bit",
    )
