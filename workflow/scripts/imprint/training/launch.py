"""The training job: holds the work folder, starts the ranks of the fit, and writes the manifest last.

This process loads no model. It holds the locks, and each rank is a process of its own (`imprint.training.rank`), which
it ends with. The manifest is the job's only declared output. Weights and curves lie beside it and checkpoints in the
work folder, so a rerun after a kill finds them (Snakemake deletes declared outputs first); the work folder carries the
job's identity and is wiped when what the job makes has changed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from imprint.runtime import job_record, plugins, work
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import file_sha256, fingerprint, read_manifest, write_json
from imprint.runtime.plugins import Plug, Strict
from imprint.runtime.stages import STAGES
from imprint.tables.inputs import Named

VERSIONS = ("torch", "transformers", "trl", "peft", "accelerate")


class Spec(Strict):
    """What a training job makes: one arm at one seed. `dtype` is the config's: "auto" depends on the device."""

    arm: str
    seed: int
    method: Plug
    contexts: list[Plug]
    inputs: Named
    dtype: str
    limit: int | None


class Rank(Strict):
    """What one process of a fit is told."""

    spec: Spec
    manifests: list[str]
    datasets: list[str]
    runs: list[str]
    scratch: str
    out: str
    threads: int
    device: str
    gpus: int


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
) -> None:
    """Fit one arm at one seed; `out` is the manifest's path, `device` the config's and `gpus` what the job was
    given."""
    identity = work.identity(spec, [*datasets, *runs], [*manifests, *spec.inputs.manifests()], code)
    folder = out.parent
    with work.folder(folder / "work", identity) as scratch:
        # Of an earlier fit, by a method that may have written what this one does not.
        for name in STAGES["train"].beside:
            (folder / f"{name}.parquet").unlink(missing_ok=True)
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
        )
        told = _ranks(scratch, rank)
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
                "metrics": told["metrics"],
                "spec": spec.model_dump(mode="json"),
                "parents": parents,
                "data": {name: file_sha256(path) for name, path in zip(spec.inputs.datasets, datasets, strict=True)},
                "weights": weights,
                "template_sha256": read_manifest(manifests[0])["template_sha256"],
                "device": told["device"],
                "dtype": told["dtype"],
                "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
                # What the children are built on is the weights: an equal refit leaves them alone.
                "fingerprint": fingerprint([weights, spec.model_dump(mode="json"), parents]),
            },
        )
        work.remove(scratch)


def _ranks(scratch: Path, rank: Rank) -> dict[str, Any]:
    """Start the ranks and wait for them. Returns what the first one tells: metrics, device, dtype. Raises ImprintError
    with its message where it fails, and where it dies."""
    order = scratch / "rank.json"
    write_json(order, rank.model_dump(mode="json"))
    from imprint.training import rank as program  # it imports this module; as an import it is part of the job's code

    # The answer is kept in memory, since it may be that the disk is full.
    with open(os.memfd_create("answer"), "rb", buffering=0) as answer:
        number = answer.fileno()
        words = [sys.executable, "-P", "-m", program.__name__, str(order), str(number), str(os.getpid())]
        environment = {**os.environ, "PYTHONPATH": str(plugins.PACKAGE.parent)}
        process = subprocess.Popen(words, env=environment, pass_fds=[number])
        try:
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        answer.seek(0)
        said = answer.read()
    if status < 0:
        name = signal.Signals(-status).name
        raise ImprintError(
            f"the process of the fit was ended by {name} (by SIGKILL where memory runs out); run again: what was "
            "finished is kept"
        )
    told: dict[str, Any] = json.loads(said or "{}")
    job_record.add(told.get("accelerator", {}))
    if "error" in told:
        raise ImprintError(told["error"])
    if status != 0:
        raise ImprintError(f"the process of the fit ended with exit status {status}; what it printed says why")
    return told
