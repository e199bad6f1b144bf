"""The training job: locks the work folder, starts the processes that fit, and writes the manifest last.

The job's own process loads no model. The fit runs in child processes (`training/children.py`), one for each GPU of the
job, which end when their parent ends. They may be on several machines (`training/nodes.py`). The manifest is the job's
only declared output, since Snakemake deletes declared outputs before a rerun. Weights and curves lie beside the
manifest and checkpoints in the work folder, so a rerun after a kill finds them. The work folder carries the job's
identity, and is emptied when the identity changes."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

from imprint.runtime import gpu_memory, model_sizes, plugins, ranks, tracking, work
from imprint.runtime.identity import file_sha256, fingerprint, read_manifest, write_json
from imprint.runtime.plugins import Plug, Strict
from imprint.runtime.ranks import Ranks
from imprint.runtime.stages import STAGES
from imprint.tables.inputs import Named
from imprint.training import children, nodes, sharing

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
    """What every process that fits gets from the job, as the file `rank.json`. `scratch` is the work folder, `size` the
    number of processes on all `nodes`, and `threads` those of one of them. `door` is where those of several nodes find
    each other."""

    spec: Spec
    manifests: list[str]
    datasets: list[str]
    runs: list[str]
    scratch: str
    out: str
    threads: int
    device: str
    gpus: int
    size: int
    nodes: int
    door: ranks.Door | None
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
    node_count: int = 1,
    track: str = "",
    gpu_memory_gb: int = 0,
) -> None:
    """Fit one arm at one seed. `out` is the manifest's path. `device` is the config's, `gpus` the number that the job
    may use, each by a rank of its own (on a CPU, as many ranks share the threads), and `gpu_memory_gb` what the profile
    says of their memory, 0 for nothing. The job has `node_count` nodes of Slurm, each with `threads` and with an equal
    part of the GPUs. `track` names the tracker, and is empty without one. Raises ImprintError if the fit fails, and
    before it begins if it needs more memory, or cannot run on so many ranks or nodes."""
    size = max(node_count, gpus)
    sharing.check(spec.arm, spec.method, size, node_count)
    nodes.check(spec.arm, node_count)
    if gpus and device != "cpu":
        model = model_sizes.model(manifests[0].parent)
        gpu_memory.check(spec.arm, spec.method, model, spec.dtype, gpu_memory_gb, size, node_count)
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
            threads=max(1, threads // (size // node_count)),
            device=device,
            gpus=gpus,
            size=size,
            nodes=node_count,
            door=None,
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
                "ranks": size,
                "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
                # Children depend on this fingerprint alone, so a refit with equal weights does not rerun them.
                "fingerprint": fingerprint([weights, spec.model_dump(mode="json"), parents]),
            },
        )
        work.remove(scratch)


def _fit(scratch: Path, rank: Rank) -> dict[str, Any]:
    """Run the processes that fit. Returns the metrics, the device and the dtype, which rank 0 answers. Raises
    ImprintError like `children.judged`."""
    order = scratch / "rank.json"
    if rank.nodes > 1:
        with nodes.listening() as socket:
            write_json(order, rank.model_copy(update={"door": nodes.door(socket)}).model_dump(mode="json"))
            ended = nodes.run(order, rank.size, rank.nodes, rank.threads, rank.gpus, socket.fileno())
    else:
        write_json(order, rank.model_dump(mode="json"))
        (scratch / ranks.STORE).unlink(missing_ok=True)  # of a killed attempt
        ended = children.run(order, [Ranks(place, rank.size) for place in range(rank.size)], rank.device, rank.threads)
    return children.judged(ended, rank.nodes)[0]
