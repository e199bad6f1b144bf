"""The training job: hands a method what it asked for, and writes the manifest last.

The manifest is the job's only declared output. Weights and curves lie beside it and checkpoints in a work folder, so a
rerun after a kill finds them (Snakemake deletes declared outputs first); the work folder carries the job's fingerprint
and is wiped when what the job makes has changed.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from imprint import models, plugins, tables, work
from imprint.identity import file_sha256, fingerprint, read_manifest, write_json
from imprint.methods import Context, Fit

BESIDE = ("curves", "coefficients", "rollouts")
"""Tables that a method may leave beside its weights."""

VERSIONS = ("torch", "transformers", "trl", "peft", "accelerate")


def run(
    *,
    spec: dict[str, Any],
    manifests: list[Path],
    datasets: list[Path],
    runs: list[Path],
    code: list[Path],
    out: Path,
    threads: int,
    device: str,
) -> None:
    """Fit one arm at one seed; `out` is the manifest's path."""
    method = plugins.load("methods", spec["method"])
    context = plugins.load("contexts", spec["context"]["name"])
    data = dict(zip(spec["datasets"], datasets, strict=True))
    arms = {name: [Path(path) for path in chain] for name, chain in spec["arms"].items()}
    parents = {str(path): read_manifest(path)["fingerprint"] for path in manifests}
    vectors = {str(path): read_manifest(path)["fingerprint"] for chain in arms.values() for path in chain}
    identity = {
        "spec": spec,
        "parents": parents,
        "arms": vectors,
        "data": {name: file_sha256(path) for name, path in data.items()},
        "runs": [file_sha256(path) for path in runs],
        "code": work.sums(code),
    }
    folder = out.parent
    dtype = models.dtype_of(spec["dtype"], device)
    # Checkpoints of another device or number format are no beginning of this fit; the artifact's identity has neither.
    with work.folder(folder / "work", fingerprint({**identity, "device": [device, dtype]})) as scratch:
        for name in BESIDE:  # of an earlier fit, by a method that may have written what this one does not
            (folder / f"{name}.parquet").unlink(missing_ok=True)
        fit = Fit(
            arm=spec["arm"],
            seed=spec["seed"],
            settings=plugins.settings("methods", spec["method"], spec["settings"]),
            context=Context(
                context, plugins.settings("contexts", spec["context"]["name"], spec["context"]["settings"])
            ),
            manifests=manifests,
            folder=scratch,
            out=folder,
            threads=threads,
            device=device,
            dtype=dtype,
            datasets={name: tables.read_dataset(path, spec["limit"]) for name, path in data.items()},
            arms=arms,
            runs={tuple(name): path for name, path in zip(spec["runs"], runs, strict=True)},
        )
        made = method.fit(fit)
        weights = sorted(path for path in (folder / "weights").glob("*") if path.is_file())
        manifest = {
            "arm": spec["arm"],
            "seed": spec["seed"],
            "kind": made["kind"],
            "metrics": made["metrics"],
            "spec": spec,
            "parents": parents,
            "data": identity["data"],
            "weights": {path.name: file_sha256(path) for path in weights},
            "template_sha256": read_manifest(manifests[0])["template_sha256"],
            "device": device,
            "dtype": dtype,
            "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        }
        # What the children are built on is the weights: an equal refit leaves them alone.
        write_json(out, {**manifest, "fingerprint": fingerprint([manifest["weights"], identity["spec"], parents])})
        work.remove(scratch)
