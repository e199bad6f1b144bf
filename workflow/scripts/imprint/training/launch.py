"""The training job: locks the work folder, starts the process that fits, and writes the manifest last.

The job's own process loads no model. The fit runs in a child process (`imprint.training.rank`), which ends when its
parent ends. The manifest is the job's only declared output, since Snakemake deletes declared outputs before a rerun.
Weights and curves lie beside the manifest and checkpoints in the work folder, so a rerun after a kill finds them. The
work folder carries the job's identity, and is emptied when the identity changes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from imprint.runtime import gpu_memory, job_record, model_sizes, plugins, tracking, work
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, fingerprint, read_manifest, write_json
from imprint.runtime.plugins import Plug, Strict
from imprint.runtime.stages import STAGES
from imprint.tables.inputs import Named

VERSIONS = ("torch", "transformers", "trl", "peft", "accelerate")


class Spec(Strict):
    """What a training job makes: one arm at one seed. `dtype` is the config's; "auto" leaves the choice to the
    device."""

    arm: str
    seed: int
    method: Plug
    contexts: list[Plug]
    inputs: Named
    dtype: str
    limit: int | None


class Rank(Strict):
    """What the process that fits gets from the job, as the file `rank.json`. `scratch` is the work folder."""

    spec: Spec
    manifests: list[str]
    datasets: list[str]
    runs: list[str]
    scratch: str
    out: str
    threads: int
    device: str
    gpus: int
    track: str


def run(
    *,
    spec: Spec,
    manifests: list[Path],
    datasets: list[Path],
    runs: list[Path],
    code: str,
    out: Path,
    threads: int,
    device: str,
    gpus: int,
    track: str = "",
    gpu_memory_gb: int = 0,
) -> None:
    """Fit one arm at one seed. `out` is the manifest's path. `device` is the config's, `gpus` the number that the job
    may use, and `gpu_memory_gb` what the profile says of their memory, 0 for nothing. `track` names the tracker, and is
    empty without one. Raises ImprintError if the fit fails, and before it begins if it needs more memory."""
    if gpus and device != "cpu":
        gpu_memory.check(spec.arm, spec.method, model_sizes.model(manifests[0].parent), spec.dtype, gpu_memory_gb)
    identity = work.identity(spec, [*datasets, *runs], [*manifests, *spec.inputs.manifests()], code)
    folder = out.parent
    with work.folder(folder / "work", identity) as scratch:
        # An earlier fit, by another method, may have written tables that this method does not write.
        for name in STAGES["train"].beside:
            (folder / f"{name}.parquet").unlink(missing_ok=True)
        if not track:  # else the tracker takes the place of an earlier fit's curves
            shutil.rmtree(folder / tracking.FOLDER, ignore_errors=True)
        rank = Rank(
            spec=spec,
            manifests=list(map(str, manifests)),
            datasets=list(map(str, datasets)),
            runs=list(map(str, runs)),
            scratch=str(scratch),
            out=str(folder),
            threads=threads,
            device=device,
            gpus=gpus,
            track=track,
        )
        result = _fit(scratch, rank)
        parents = {str(path): read_manifest(path)["fingerprint"] for path in manifests}
        files = sorted(path for path in (folder / "weights").glob("*") if path.is_file())
        weights = {path.name: file_sha256(path) for path in files}
        settings = plugins.settings("methods", spec.method.name, spec.method.settings)
        write_json(
            out,
            {
                "arm": spec.arm,
                "seed": spec.seed,
                "kind": plugins.load("methods", spec.method.name).makes(settings),
                "metrics": result["metrics"],
                "spec": spec.model_dump(mode="json"),
                "parents": parents,
                "data": {name: file_sha256(path) for name, path in zip(spec.inputs.datasets, datasets, strict=True)},
                "weights": weights,
                "template_sha256": read_manifest(manifests[0])["template_sha256"],
                "device": result["device"],
                "dtype": result["dtype"],
                "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
                # Children depend on this fingerprint alone, so a refit with equal weights does not rerun them.
                "fingerprint": fingerprint([weights, spec.model_dump(mode="json"), parents]),
            },
        )
        work.remove(scratch)


def _fit(scratch: Path, rank: Rank) -> dict[str, Any]:
    """Run the process that fits. Returns its metrics, device and dtype. Raises ImprintError with the process's own
    message if it fails, or with its signal or exit status if it dies."""
    order = scratch / "rank.json"
    write_json(order, rank.model_dump(mode="json"))
    # The import makes the program part of the job's code. It comes late because the program imports this module.
    from imprint.training import rank as program

    # The answer is kept in memory, so that it arrives even when the disk is full.
    with open(os.memfd_create("answer"), "rb", buffering=0) as answer:
        descriptor = answer.fileno()
        command = [sys.executable, "-P", "-m", program.__name__, str(order), str(descriptor), str(os.getpid())]
        environment = {**os.environ, "PYTHONPATH": str(plugins.PACKAGE.parent)}
        process = subprocess.Popen(command, env=environment, pass_fds=[descriptor])
        try:
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        answer.seek(0)
        text = answer.read()
    if status < 0:
        name = signal.Signals(-status).name
        raise ImprintError(
            f"the process of the fit was ended by {name} (by SIGKILL where memory runs out); run again: what was "
            "finished is kept"
        )
    result: dict[str, Any] = json.loads(text or "{}")
    job_record.add(result.get("accelerator", {}))
    if "error" in result:
        raise ImprintError(result["error"])
    if status != 0:
        raise ImprintError(f"the process of the fit ended with exit status {status}; what it printed says why")
    return result
