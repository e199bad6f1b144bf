"""What hooks put into a model's activations: named tensors, fp32 safetensors under `weights/`. They are no weights, so
a child of their arm starts from the weights that the arm itself started from. `apply: {hooks: {NAME: {of: ARM}}}` uses
them."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from imprint.models.model_files import verify
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_manifest

WEIGHTS = False
FILE = "hooks.safetensors"


def write(folder: Path, tensors: Mapping[str, Any]) -> None:
    """Write tensors by name. Raises ImprintError for a tensor that holds a number that is not finite."""
    from safetensors.torch import save_file

    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ImprintError(f"{name}: the model's activations are not finite; fit its arm again with smaller steps")
    weights = folder / "weights"
    shutil.rmtree(weights, ignore_errors=True)  # an earlier fit may have left files of another kind
    weights.mkdir(parents=True)
    partial = weights / f".{FILE}"
    save_file({name: tensor.float().cpu().contiguous() for name, tensor in tensors.items()}, partial)
    partial.chmod(0o644)
    partial.replace(weights / FILE)


def read(manifests: list[Path], who: str, names: Collection[str]) -> dict[str, Any]:
    """The tensors of the arm whose chain of manifests is given, fp32. Raises ImprintError, which names `who` asks, if
    the arm has made another artifact, or tensors of another method."""
    from safetensors.torch import load_file

    path = manifests[-1]
    manifest = read_manifest(path)
    if manifest["kind"] != "hooks":
        raise ImprintError(f"{who}: {path} is of the kind '{manifest['kind']}'; name an arm whose method makes hooks")
    verify(path)
    tensors = load_file(path.parent / "weights" / FILE)
    if set(tensors) != set(names):
        raise ImprintError(
            f"{who}: arm '{manifest['arm']}' has {', '.join(sorted(tensors))}, and {', '.join(sorted(names))} are "
            "needed; name an arm of the method that makes them"
        )
    return tensors
