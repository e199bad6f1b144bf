"""A fit that several ranks share: that it is the fit of one, and how it ends when one of them does. The ranks are two
processes on the CPU, where sums go through gloo."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import fitting
import mini
import pico_arms
import test_launch
from imprint.methods import Fit, sft
from imprint.runtime import parquet, plugins, processes, rank_processes
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, read_json
from imprint.runtime.plugins import Plug
from imprint.runtime.ranks import Ranks
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named
from imprint.training import checkpoints, launch, sharing

SETTINGS = {
    "data": "d",
    "batch_size": 4,
    "micro_batch_size": 1,
    "max_length": 512,
    "learning_rate": 1e-3,
    "epochs": 3,
    "checkpoint_steps": 3,
}
"""Of a fit of 8 steps, each of two passes in each rank. The last step has two rows, both of rank 0."""

TOGETHER = '''
"""Ranks that wait for each other. The second one ends as the settings say."""
import os, signal, sys, time
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.training.sharing import Shared

class Settings(Strict):
    end: str

def makes(settings):
    return "notes"

def shared(settings):
    return Shared(2, "rows", "end")

def fit(job):
    print(f"rank {job.ranks.place} is here", file=sys.stderr, flush=True)
    told = job.ranks.first(lambda: f"said by {job.ranks.place}"), job.ranks.total(10 ** job.ranks.place)
    if job.ranks.place == 1:
        match job.settings.end:
            case "refused":
                raise ImprintError("arm 'tuned': found this; write that")
            case "never":
                time.sleep(600)
    job.ranks.wait()
    (job.out / "weights").mkdir()
    (job.out / "weights" / "notes.txt").write_text(f"what {job.ranks.place} has learned")
    return {"told": told, "threads": os.environ["OMP_NUM_THREADS"], "place": job.ranks.place}
'''


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_arms.root(tmp_path_factory.mktemp("models") / "pico")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "d.parquet"
    dataset_rows.write(path, "d", fitting.dialogues(), "0")
    return path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with a method whose ranks wait for each other."""
    return test_launch.package_with(tmp_path_factory.mktemp("scripts"), "together", TOGETHER)


def spec(**settings: Any) -> launch.Spec:
    plug = Plug(name="sft", settings={**SETTINGS, **settings})
    return test_launch.spec().model_copy(update={"method": plug})


def together(end: str) -> launch.Spec:
    plug = Plug(name="together", settings={"end": end})
    return test_launch.spec().model_copy(update={"method": plug, "inputs": Named()})


def on_two(spec: launch.Spec, manifests: list[Path], folder: Path, *datasets: Path, node_count: int = 1) -> None:
    """The job on two ranks, in this process."""
    launch.run(
        spec=spec,
        manifests=manifests,
        datasets=list(datasets),
        runs=[],
        code="{}",
        out=folder / "manifest.json",
        threads=2,
        device="cpu",
        gpus=2,
        node_count=node_count,
    )


def on_one(manifests: list[Path], out: Path, **settings: Any) -> Fit:
    """The same fit as one rank."""
    fit = fitting.job("sft", manifests, out, datasets={"d": fitting.dialogues()}, **{**SETTINGS, **settings})
    sft.fit(fit)
    return fit


def assert_same(folder: Path, fit: Fit) -> None:
    """That a folder's fit is another one but for rounding."""
    (ours,), (theirs,) = ((each / "weights").glob("*.safetensors") for each in (folder, fit.out))
    ours, theirs = load_file(ours), load_file(theirs)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).abs().max() < 1e-6, name
    rows = parquet.read(folder / "curves.parquet", "curves").to_pylist()
    expected = fitting.table(fit, "curves")
    assert [(row["step"], row["quantity"]) for row in rows] == [(row["step"], row["quantity"]) for row in expected]
    assert [row["value"] for row in rows] == pytest.approx([row["value"] for row in expected], rel=1e-5)


def same_bits(one: Path, other: Path) -> bool:
    names = ("weights/model.safetensors", "curves.parquet")
    manifests = [read_json(each / "manifest.json") for each in (one, other)]
    return manifests[0] == manifests[1] and all(file_sha256(one / name) == file_sha256(other / name) for name in names)


SRUN = """#!/bin/sh
# Runs its command as a process of its own, which outlives it: Slurm's own would run it elsewhere.
while [ "${1#--}" != "$1" ]; do words="$words $1"; shift; done
echo $words >> "$SRUN/asked"
echo "what a site prints"
"$@"
"""


@pytest.fixture(scope="module")
def unbroken(root: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit on two ranks."""
    folder = tmp_path_factory.mktemp("arms") / "tuned"
    on_two(spec(), [root], folder, data)
    return folder


def test_two_ranks_fit_what_one_fits(unbroken: Path, root: Path, tmp_path: Path) -> None:
    one = on_one([root], tmp_path)
    assert_same(unbroken, one)
    manifest = read_json(unbroken / "manifest.json")
    assert manifest["ranks"] == 2 and manifest["metrics"]["steps"] == 8
    assert {path.name for path in unbroken.iterdir()} == {"manifest.json", "curves.parquet", "weights"}
    assert [path.name for path in (unbroken / "weights").iterdir()] == ["model.safetensors"]
    assert not {"ranks", "gpu"} & manifest["spec"].keys(), "where a fit runs is no part of what it is"


def test_an_adapter_is_fitted_on_a_chain_that_ends_in_one(root: Path, data: Path, tmp_path: Path) -> None:
    chain = pico_arms.lora(root, tmp_path / "low", 3, below=pico_arms.full(root, tmp_path / "full"))
    settings = {"lora": {"rank": 4, "alpha": 8}, "epochs": 1, "micro_batch_size": None}
    on_two(spec(**settings), chain, tmp_path / "two", data)
    assert_same(tmp_path / "two", on_one(chain, tmp_path / "one", **settings))


def ranks_of(job: Any) -> dict[int, int]:
    """Place -> process of the ranks that a job has started."""
    found = {processes.environment(pid).get("RANK"): pid for pid in test_launch.children(job.pid)}
    return {int(place): pid for place, pid in found.items() if place is not None}


def kill_a_rank(spec: launch.Spec, root: Path, out: Path, *datasets: Path, step: int) -> tuple[Path, str]:
    """The job on two ranks in the folder `out`, where the second one is killed after the checkpoint of a step. Returns
    the folder of the checkpoints, and what was printed."""
    job = test_launch.start(spec, root, out / "manifest.json", *datasets, gpus=2)
    folder = out / "work" / "cpu-float32-2ranks"
    mini.wait((folder / f"checkpoint-{step}" / checkpoints.SEAL).exists, "its first checkpoint", 120, job)
    both = ranks_of(job)
    processes.send(both[1], signal.SIGKILL, lambda _: True)
    _, printed = job.communicate(timeout=300)
    assert "told: rank 1 of the fit's 2 ranks was ended by SIGKILL (by SIGKILL where memory runs out)" in printed
    assert all(processes.started(pid) is None for pid in both.values())
    assert not (out / "weights").exists(), "the fit ended before it was killed"
    return folder, printed


def test_a_killed_rank_ends_the_fit_which_goes_on_to_the_same_bits(
    unbroken: Path, root: Path, data: Path, tmp_path: Path
) -> None:
    folder, printed = kill_a_rank(spec(), root, tmp_path, data, step=3)
    assert printed.count("tuned seed 0:   0%") == 1, "one progress bar"
    last = checkpoints.last(folder)
    assert last is not None
    assert {path.name for path in last.iterdir()} == {
        *(f"{what}-{place}.safetensors" for what in ("weights", "optimizer") for place in (0, 1)),
        *("rng_state_0.pth", "rng_state_1.pth", "scheduler.pt", "trainer_state.json", checkpoints.SEAL),
    }
    on_two(spec(), [root], tmp_path, data)
    assert same_bits(tmp_path, unbroken)


def test_checkpoints_of_another_number_of_ranks_are_no_beginning(
    unbroken: Path, root: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from imprint.training.rank import checkpoint_folder

    (tmp_path / "cpu-float32-2ranks/checkpoint-3").mkdir(parents=True)
    assert checkpoint_folder(tmp_path, "cpu-float32", Ranks()) == tmp_path / "cpu-float32"
    assert (
        "has checkpoints of another number of ranks (cpu-float32-2ranks), which hold the weights in other parts; with "
        "1 the fit does not go on from them"
    ) in capfd.readouterr().err
    for place in (0, 1):
        own = checkpoint_folder(tmp_path, "cpu-float32", Ranks(place, 2))
        assert own == tmp_path / "cpu-float32-2ranks"
    assert capfd.readouterr().err == ""


def test_a_seal_names_no_file_that_another_rank_is_writing(tmp_path: Path) -> None:
    """safetensors writes into a file whose name begins with a dot, and renames it."""
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    for name in ("weights-0.safetensors", "weights-1.safetensors", ".tmpA1b2C3"):
        (folder / name).write_text(name)
    assert checkpoints.files(tmp_path, 3) == ["weights-0.safetensors", "weights-1.safetensors"]
    seen = [*checkpoints.files(tmp_path, 3), "weights-0.safetensors"]
    (folder / ".tmpA1b2C3").unlink()
    checkpoints.seal(tmp_path, 3, seen)
    assert set(read_json(folder / checkpoints.SEAL)) == {"weights-0.safetensors", "weights-1.safetensors"}


def test_ranks_talk_and_the_first_ones_word_is_the_jobs(root: Path, package: Path, tmp_path: Path) -> None:
    job = test_launch.start(together("well"), root, tmp_path / "manifest.json", package=package, gpus=2)
    _, printed = job.communicate(timeout=300)
    assert job.returncode == 0, printed
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["metrics"] == {"told": ["said by 0", 11], "threads": "1", "place": 0}
    assert (tmp_path / "weights/notes.txt").read_text() == "what 0 has learned"
    assert {"rank 0 is here", "[rank 1] rank 1 is here"} <= set(printed.splitlines())


def on_nodes(folder: Path, srun: str = SRUN) -> dict[str, str]:
    """The environment of a job on several nodes, whose `srun` runs its command on this machine. All processes of the
    job have the folder's name in `SRUN`."""
    program = folder / "bin/srun"
    program.parent.mkdir(parents=True)
    program.write_text(srun)
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    return {"PATH": path, "SLURM_JOB_ID": "1", "GLOO_SOCKET_IFNAME": "lo", "SRUN": str(folder)}


def started(folder: Path) -> dict[str, int]:
    """Place of a rank, or the name of another program -> process, of those that run with the environment `on_nodes`."""
    found = {}
    for pid in processes.all_mine():
        variables = processes.environment(pid)
        if variables.get("SRUN") == str(folder):
            found[variables.get("RANK") or processes.command(pid)] = pid
    return found


def test_nodes_fit_what_one_machine_fits(unbroken: Path, root: Path, data: Path, tmp_path: Path) -> None:
    """To the bit, with a rank on each of two nodes."""
    environment = on_nodes(tmp_path / "site")
    folder = tmp_path / "tuned"
    job = test_launch.start(spec(), root, folder / "manifest.json", data, gpus=2, nodes=2, env=environment)
    _, printed = job.communicate(timeout=300)
    assert job.returncode == 0, printed
    assert same_bits(folder, unbroken)
    assert (tmp_path / "site/asked").read_text().splitlines() == [
        "--nodes=1 --ntasks=1 --relative=1 --cpus-per-task=1 --mpi=none --gres=gpu:1"
    ]
    assert started(tmp_path / "site") == {}


def test_a_rank_that_dies_on_another_node_ends_all(root: Path, package: Path, tmp_path: Path) -> None:
    site, out = tmp_path / "site", tmp_path / "tuned/manifest.json"
    job = test_launch.start(together("never"), root, out, package=package, gpus=2, nodes=2, env=on_nodes(site))
    mini.wait((out.parent / "work" / "rank1").exists, "its ranks", 60, job)
    processes.send(started(site)["1"], signal.SIGKILL, lambda _: True)
    _, printed = job.communicate(timeout=60)
    assert printed.splitlines()[-1].startswith("told: rank 1 of the fit's 2 ranks was ended by SIGKILL"), printed
    assert "imprint: rank 1 on " in printed
    assert started(site) == {}


def test_an_error_on_another_node_is_the_jobs(root: Path, package: Path, tmp_path: Path) -> None:
    site, out = tmp_path / "site", tmp_path / "tuned/manifest.json"
    job = test_launch.start(together("refused"), root, out, package=package, nodes=2, env=on_nodes(site))
    _, printed = job.communicate(timeout=300)
    assert job.returncode == 1 and printed.splitlines()[-1] == "told: arm 'tuned': found this; write that", printed
    assert "[rank 1] rank 1 is here" in printed.splitlines()
    assert "--gres" not in (site / "asked").read_text(), "a job without GPUs has none to give"
    assert started(site) == {}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_all_nodes_end_with_the_job(root: Path, package: Path, tmp_path: Path, number: signal.Signals) -> None:
    site, out = tmp_path / "site", tmp_path / "tuned/manifest.json"
    job = test_launch.start(together("never"), root, out, package=package, gpus=2, nodes=2, env=on_nodes(site))
    mini.wait(lambda: {"0", "1"} <= started(site).keys(), "its ranks", 60, job)
    job.send_signal(number)
    job.wait()
    mini.wait(lambda: not started(site), "the ranks to end", 10)


def test_a_launcher_that_does_not_start_is_named(root: Path, package: Path, tmp_path: Path) -> None:
    environment = on_nodes(tmp_path / "site", "#!/bin/sh\necho srun: error: no such node >&2\nexit 3\n")
    out = tmp_path / "tuned/manifest.json"
    job = test_launch.start(together("never"), root, out, package=package, gpus=2, nodes=2, env=environment)
    _, printed = job.communicate(timeout=60)
    assert "srun: error: no such node" in printed
    assert (
        "told: the launcher of the ranks on node 1 of the job's 2 ended with exit status 3 and gave no answer"
        in printed
    )
    assert started(tmp_path / "site") == {}


def test_nodes_are_refused_without_slurm(
    root: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ImprintError, match=r"^arms\.tuned\.resources\.nodes: found 2, and only Slurm .* `nodes: 1`$"):
        on_two(spec(), [root], tmp_path, data, node_count=2)
    assert list(tmp_path.iterdir()) == []


def test_ranks_of_a_node_follow_each_other() -> None:
    every = [Ranks(place, 6, 2) for place in range(6)]
    assert [(each.place_on_node, each.of_node) for each in every] == [(0, 3), (1, 3), (2, 3), (0, 3), (1, 3), (2, 3)]
    there = every[4].environment("cuda", 5)
    assert {key: there[key] for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")} == {
        "RANK": "4", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3"
    }  # fmt: skip
    assert "GLOO_SOCKET_IFNAME" not in there, "what the site says of its network stays"


def test_an_error_of_any_rank_is_the_jobs(root: Path, package: Path, tmp_path: Path) -> None:
    job = test_launch.start(together("refused"), root, tmp_path / "manifest.json", package=package, gpus=2)
    _, printed = job.communicate(timeout=300)
    assert job.returncode == 1 and printed.splitlines()[-1] == "told: arm 'tuned': found this; write that", printed
    assert {path.name for path in tmp_path.iterdir()} == {"work"}


def test_all_ranks_end_with_their_parent(root: Path, package: Path, tmp_path: Path) -> None:
    job = test_launch.start(together("never"), root, tmp_path / "manifest.json", package=package, gpus=2)
    mini.wait((tmp_path / "work/rank1").exists, "its ranks", 60, job)
    both = ranks_of(job)
    assert sorted(both) == [0, 1]
    job.send_signal(signal.SIGKILL)
    job.wait()
    mini.wait(lambda: all(processes.started(pid) is None for pid in both.values()), "the ranks to end", 10)


def test_a_job_counts_the_memory_of_all_its_gpus() -> None:
    cuda = {"device": "cuda", "gpu_names": ["a", "b"]}
    answers = [{"used": {**cuda, "peak_gpu_memory_bytes": size}} for size in (3, 4)]
    assert rank_processes.used(answers) == {**cuda, "peak_gpu_memory_bytes": 7}
    assert rank_processes.used([{}, {"used": {"device": "cpu"}}]) == {"device": "cpu"}
    assert rank_processes.used([{}, {}]) == {}
    of_nodes = [{"used": {"device": "cuda", "gpu_names": [name], "peak_gpu_memory_bytes": 1}} for name in "ab"]
    assert rank_processes.used(of_nodes, 2) == {
        "device": "cuda",
        "gpu_names": ["a", "b"],
        "peak_gpu_memory_bytes": 2,
    }


@pytest.mark.parametrize(
    ("results", "statuses", "message"),
    [
        ([{"failed_at": 2.0}, {"error": "found this"}], [1, 1], "found this"),
        ([{"failed_at": 1.0}, {}], [1, -9], "rank 1 of the fit's 2 ranks was ended by SIGKILL"),
        ([{"failed_at": 2.0}, {"failed_at": 1.0}], [1, 1], "rank 1 of the fit's 2 ranks ended with exit status 1"),
        ([{"failed_at": 2.0}, {}], [None, 3], "rank 1 of the fit's 2 ranks ended with exit status 3"),
        ([{}], [-11], "the process of the fit was ended by SIGSEGV"),
    ],
)
def test_the_rank_is_named_that_failed_first(
    results: list[dict[str, Any]], statuses: list[int | None], message: str
) -> None:
    with pytest.raises(ImprintError) as refused:
        rank_processes.refuse(results, statuses, "fit")
    assert str(refused.value).startswith(message)


def plug(method: str, **settings: Any) -> Plug:
    made = plugins.load("methods", method).Settings(**settings)
    return Plug(name=method, settings=json.loads(made.model_dump_json()))


def test_what_ranks_cannot_share_is_refused() -> None:
    for size in (0, 1, 2, 4, 8):
        sharing.check("tuned", plug("sft", data="d", batch_size=8), size)
    sharing.check("tuned", plug("task_arithmetic", vectors=["a"], scale=1.0), 1)
    with pytest.raises(ImprintError, match=r"^arm 'tuned': .* 2 GPUs .* by task_arithmetic runs on one; write"):
        sharing.check("tuned", plug("task_arithmetic", vectors=["a"], scale=1.0), 2)
    with pytest.raises(ImprintError) as refused:
        sharing.check("tuned", plug("sft", data="d", batch_size=6), 4)
    assert str(refused.value) == (
        "arm 'tuned': its fit has 4 GPUs (`resources: {gpu: 4}`, of the arm or of the profile), which cannot share an "
        "update equally: its rows are 6 (batch_size); write 3 GPU(s), or settings with which they are a multiple of 4"
    )
    sharing.check("tuned", plug("sft", data="d", batch_size=6), 6, 3)
    with pytest.raises(
        ImprintError, match=r"has 4 GPUs \(`resources: \{gpu: 2, nodes: 2\}`, .* write 3 GPU\(s\) in all,"
    ):
        sharing.check("tuned", plug("sft", data="d", batch_size=6), 4, 2)


def test_what_ranks_share_of_a_rollout() -> None:
    """The completions of an update; where the loss is a mean within each pass, whole passes."""
    recipe = {"data": "d", "reward": ["ifeval"], "prompts_per_step": 4, "group_size": 6, "updates_per_rollout": 2}
    for size in (1, 2, 3, 4, 6, 12):
        sharing.check("tuned", plug("grpo", **recipe), size)
    with pytest.raises(ImprintError, match=r"its completions are 12 \(prompts_per_step, .*\); write 4 GPU\(s\), or"):
        sharing.check("tuned", plug("grpo", **recipe), 5)
    sharing.check("tuned", plug("grpo", **recipe, loss="bnpo", micro_batch_size=3), 4)
    with pytest.raises(
        ImprintError, match=r"its backward passes \(loss: bnpo\) are 2 \(micro_batch_size, prompts_per_"
    ):
        sharing.check("tuned", plug("grpo", **recipe, loss="bnpo", micro_batch_size=6), 4)
    with pytest.raises(ImprintError, match=r"are 1 .*; write 1 GPU\(s\), or settings with which"):
        sharing.check("tuned", plug("grpo", **recipe, loss="bnpo"), 2)


def test_a_job_is_refused_before_it_starts_a_rank(root: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match=r"its rows are 5 \(batch_size\); write 1 GPU"):
        on_two(spec(batch_size=5), [root], tmp_path, data)
    assert list(tmp_path.iterdir()) == []
