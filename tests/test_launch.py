"""The training job around a method: its processes, how each may end, and what is then left."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import fitting
import mini
import pico_arms
import workflow
from conftest import ROOT
from imprint.methods import sft
from imprint.runtime import frame, parquet, plugins, processes, work
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, fingerprint, read_json
from imprint.runtime.plugins import Plug
from imprint.runtime.stages import STAGES
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named
from imprint.training import checkpoints, launch

SETTINGS = {
    "data": "d",
    "batch_size": 2,
    "max_length": 512,
    "learning_rate": 1e-3,
    "epochs": 20,
    "checkpoint_steps": 10,
}
"""Of a fit of 100 steps, which takes a few seconds."""

PARENT = """
import sys
from pathlib import Path
from imprint.runtime.errors import ImprintError
from imprint.training import launch

spec, root, out, gpus, nodes, *datasets = sys.argv[1:]
try:
    launch.run(
        spec=launch.Spec.model_validate_json(spec),
        manifests=[Path(root)],
        datasets=[Path(path) for path in datasets],
        runs=[],
        code="{}",
        out=Path(out),
        threads=1,
        device="cpu",
        gpus=int(gpus),
        node_count=int(nodes),
    )
except ImprintError as error:
    sys.exit(f"told: {error}")
assert "torch" not in sys.modules, "the process that holds the locks has loaded torch"
"""

ODD = '''
"""Ends as its settings say, with a checkpoint."""
import errno, os, signal
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Strict
from imprint.training import checkpoints

class Settings(Strict):
    end: str

def makes(settings):
    return "notes"

def fit(job):
    (job.folder / "checkpoint-1").mkdir()
    (job.folder / "checkpoint-1" / "state").write_text("half")
    checkpoints.seal(job.folder, 1)
    print("so far so good", flush=True)
    match job.settings.end:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "error":
            raise RuntimeError("the method is broken")
        case "refused":
            raise ImprintError("arm 'tuned': found \\u2028 this; write that")
        case "full":
            raise OSError(errno.ENOSPC, "No space left on device", str(job.out))
    (job.out / "weights").mkdir()
    (job.out / "weights" / "notes.txt").write_text("what was learned")
    return {"tokens": 3}
'''

NOTES = '''
"""A text, which is no weights."""
WEIGHTS = False

def install(model, folder, dtype):
    raise NotImplementedError
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
    """A copy of the package with a method that ends in odd ways, and makes an artifact that is no weights."""
    return package_with(tmp_path_factory.mktemp("scripts"), "odd", ODD)


def package_with(folder: Path, method: str, text: str) -> Path:
    """A copy of the package in `folder`, with one more method and the artifact `notes`."""
    shutil.copytree(plugins.PACKAGE, folder / "imprint", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / f"imprint/methods/{method}.py").write_text(text)
    (folder / "imprint/artifacts/notes.py").write_text(NOTES)
    return folder


def spec(**changed: Any) -> launch.Spec:
    return launch.Spec(
        arm="tuned",
        seed=0,
        method=Plug(name="sft", settings={**SETTINGS, **changed}),
        contexts=[],
        inputs=Named(datasets=["d"]),
        dtype="float32",
        limit=None,
    )


def odd(end: str) -> launch.Spec:
    return spec().model_copy(update={"method": Plug(name="odd", settings={"end": end}), "inputs": Named()})


def start(
    spec: launch.Spec,
    root: Path,
    out: Path,
    *datasets: Path,
    package: Path | None = None,
    gpus: int = 0,
    nodes: int = 1,
    env: dict[str, str] | None = None,
) -> subprocess.Popen:
    """The job in a process of its own, as Snakemake starts it, with more variables in its environment."""
    environment = {**workflow.environment(), "PYTHONPATH": str(package or plugins.PACKAGE.parent), **(env or {})}
    numbers = [str(gpus), str(nodes)]
    words = [sys.executable, "-c", PARENT, spec.model_dump_json(), str(root), str(out), *numbers, *map(str, datasets)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(spec: launch.Spec, root: Path, out: Path, *datasets: Path, device: str = "cpu") -> None:
    """The job in this process."""
    launch.run(
        spec=spec,
        manifests=[root],
        datasets=list(datasets),
        runs=[],
        code="{}",
        out=out,
        threads=1,
        device=device,
        gpus=0,
    )


@pytest.fixture(scope="module")
def finished(root: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit through the launcher, with tables of an earlier one beside it."""
    folder = tmp_path_factory.mktemp("arms") / "tuned"
    folder.mkdir()
    for name in STAGES["train"].beside:
        (folder / f"{name}.parquet").write_text("old")
    job = start(spec(), root, folder / "manifest.json", data)
    _, printed = job.communicate(timeout=300)
    assert job.returncode == 0, printed
    return folder


def weights(folder: Path) -> str:
    return file_sha256(folder / "weights/model.safetensors")


def test_a_fit_through_the_launcher_is_the_methods_own(finished: Path, root: Path, tmp_path: Path) -> None:
    fit = fitting.job("sft", [root], tmp_path, datasets={"d": fitting.dialogues()}, **SETTINGS)
    metrics = sft.fit(fit)
    assert read_json(finished / "manifest.json")["metrics"] == metrics
    assert weights(finished) == weights(tmp_path)
    assert parquet.read(finished / "curves.parquet", "curves").to_pylist() == fitting.table(fit, "curves")


def test_the_manifest_says_what_the_artifact_is_made_of(finished: Path, root: Path, data: Path) -> None:
    manifest, made = read_json(finished / "manifest.json"), spec().model_dump(mode="json")
    sums, parents = {"model.safetensors": weights(finished)}, {str(root): "pico"}
    assert {name: manifest[name] for name in ("arm", "seed", "kind", "spec")} == {
        "arm": "tuned",
        "seed": 0,
        "kind": "full",
        "spec": made,
    }
    assert manifest["weights"] == sums and manifest["parents"] == parents
    assert manifest["data"] == {"d": file_sha256(data)}
    assert manifest["template_sha256"] == read_json(root)["template_sha256"]
    assert (manifest["device"], manifest["dtype"], manifest["ranks"]) == ("cpu", "float32", 1)
    assert manifest["versions"].keys() == set(launch.VERSIONS)
    assert manifest["fingerprint"] == fingerprint([sums, made, parents])


def test_tables_of_an_earlier_method_do_not_stay(finished: Path) -> None:
    """An arm that was learned and is now fitted by another method has no coefficients any more."""
    assert {path.name for path in finished.iterdir()} == {"manifest.json", "curves.parquet", "weights"}


def test_the_manifest_is_written_last(root: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, seen = launch.write_json, {}

    def watched(path: Path, value: Any) -> None:
        seen[path.name] = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
        write(path, value)

    monkeypatch.setattr(launch, "write_json", watched)
    run(spec(epochs=1), root, tmp_path / "manifest.json", data)
    assert list(seen)[-1] == "manifest.json"
    assert {"curves.parquet", "weights/model.safetensors", "work/.lock"} <= seen["manifest.json"]
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("settings", "device"),
    [({"learning_rate": 1e30}, "cpu"), ({"max_length": 10}, "cpu"), ({}, "cuda")],
    ids=["a lost loss", "a short length", "no GPU"],
)
def test_what_a_rank_refuses_ends_the_job_with_its_message(
    root: Path, data: Path, tmp_path: Path, settings: dict[str, Any], device: str
) -> None:
    fit = fitting.job("sft", [root], tmp_path / "here", datasets={"d": fitting.dialogues()}, **SETTINGS | settings)
    with pytest.raises(ImprintError) as expected:
        frame.device(device, 0)
        sft.fit(fit)
    with pytest.raises(ImprintError) as refused:
        run(spec(**settings), root, tmp_path / "there/manifest.json", data, device=device)
    assert str(refused.value) == str(expected.value)
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"work"}


@pytest.mark.parametrize(
    ("end", "message", "printed"),
    [
        ("refused", r"arm 'tuned': found \u2028 this; write that", "so far so good"),
        ("full", "{out} cannot be written: the disk is full; free some space or make it writable, and run again", ""),
        ("error", "the process of the fit ended with exit status 1; what it printed says why", "the method is broken"),
        ("exit", "the process of the fit ended with exit status 3; what it printed says why", "so far so good"),
        ("killed", "the process of the fit was ended by SIGKILL (by SIGKILL where memory runs out); run again", ""),
    ],
    ids=["refused", "full", "error", "exit", "killed"],
)
def test_however_a_rank_ends_one_message_says_so_and_its_checkpoints_stay(
    root: Path, package: Path, tmp_path: Path, end: str, message: str, printed: str
) -> None:
    job = start(odd(end), root, tmp_path / "manifest.json", package=package)
    out, err = job.communicate(timeout=120)
    assert job.returncode == 1
    assert err.splitlines()[-1].startswith(f"told: {message.format(out=tmp_path)}"), err
    assert printed in out + err
    assert ("Traceback" in err) == (end == "error"), err
    left = tmp_path / "work/cpu-float32"
    assert checkpoints.last(left) == left / "checkpoint-1"
    assert {path.name for path in tmp_path.iterdir()} == {"work"}


def test_an_artifact_that_is_no_weights_is_written_and_is_in_no_childs_chain(
    root: Path, package: Path, tmp_path: Path
) -> None:
    job = start(odd("well"), root, tmp_path / "manifest.json", package=package)
    _, printed = job.communicate(timeout=120)
    assert job.returncode == 0, printed
    manifest = read_json(tmp_path / "manifest.json")
    assert (manifest["kind"], manifest["metrics"]) == ("notes", {"tokens": 3})
    assert manifest["weights"] == {"notes.txt": file_sha256(tmp_path / "weights/notes.txt")}
    code = """
import json, sys
from pathlib import Path
import conftest
from imprint.config import loading
from imprint.dag.experiment import Experiment
from imprint.models import chains
from imprint.runtime.errors import ImprintError

raw = conftest.one_fit()
raw["arms"]["noted"] = {"parent": "tuned", "fit": {"method": "odd", "end": "well"}}
raw["arms"]["child"] = {"parent": "noted", "fit": {"method": "sft", "data": "dialogues"}}
made = Experiment(loading.parse(raw))
try:
    refused = chains.links([Path(path) for path in sys.argv[1:]])
except ImprintError as error:
    refused = str(error)
print(json.dumps([made.chain("noted", 0), made.chain("child", 0), made.artifact("noted", 0), refused]))
"""
    environment = {**workflow.environment(), "PYTHONPATH": f"{package}:{Path(__file__).parent}"}
    words = [sys.executable, "-c", code, str(root), str(tmp_path / "manifest.json")]
    told = json.loads(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)
    model, *fits = (Path(path).parts[-3:-1] for path in told[1])
    assert model[0] == "models" and fits == [("tuned", "seed0"), ("child", "seed0")]
    assert told[0] == told[1][:2], "what an arm is that only noted something: its parent's weights"
    assert told[2] == [*told[0], "results/arms/noted/seed0/manifest.json"]
    assert told[3].endswith(f"{tmp_path / 'manifest.json'} is 'notes'")


def children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_a_rank_ends_with_its_parent_and_the_next_run_goes_on_to_the_same_bits(
    finished: Path, root: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start(spec(), root, tmp_path / "manifest.json", data)
    folder = tmp_path / "work/cpu-float32"
    mini.wait((folder / f"checkpoint-10/{checkpoints.SEAL}").exists, "its first checkpoint", 120, job)
    (rank,) = children(job.pid)
    job.send_signal(signal.SIGKILL)
    job.wait()
    killed = time.monotonic()
    mini.wait(lambda: processes.started(rank) is None, "the rank to end", 10)
    assert time.monotonic() - killed < 2
    assert not (tmp_path / "weights").exists(), "the fit ended before it was killed"
    assert checkpoints.last(folder) is not None
    run(spec(), root, tmp_path / "manifest.json", data)
    ours, theirs = (read_json(each / "manifest.json") for each in (tmp_path, finished))
    assert ours == theirs
    one, two = (file_sha256(each / "curves.parquet") for each in (tmp_path, finished))
    assert one == two


def test_a_rank_whose_parent_has_ended_does_not_begin(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "imprint.training.rank", str(tmp_path / "rank.json"), "1", "1", "0"]
    begun = subprocess.run(words, env=workflow.environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert begun.returncode == -signal.SIGKILL and begun.stderr == ""


def test_checkpoints_of_another_device_or_number_format_are_no_beginning(
    root: Path, data: Path, tmp_path: Path
) -> None:
    """Those of another fit are put in their place: where they are gone on from, other weights come out."""
    short = {"epochs": 2, "checkpoint_steps": 4}
    datasets = {"d": fitting.dialogues()}
    ours, other = (
        fitting.job("sft", [root], tmp_path / str(seed), seed=seed, datasets=datasets, **SETTINGS | short)
        for seed in (0, 1)
    )
    sft.fit(ours)
    sft.fit(other)
    identity = work.identity(spec(**short), [data], [root], "{}")
    for case, names in (("others", ("cpu-bfloat16", "cuda-float32")), ("its own", ("cpu-float32",))):
        with work.folder(tmp_path / case / "work", identity) as scratch:
            for name in names:
                shutil.copytree(other.folder, scratch / name)
        run(spec(**short), root, tmp_path / case / "manifest.json", data)
    assert weights(tmp_path / "others") == weights(ours.out)
    assert weights(tmp_path / "its own") != weights(ours.out)
