"""What mergekit makes of two full fits of the pico model, a whole run for each rule that is a baseline here and defined
alike: writes every seventh element of the results to `mergekit.safetensors` beside this file, for `test_merging.py`.
Needs mergekit, which nothing else does:

pip install mergekit==0.1.5 && PYTHONPATH=workflow/scripts python tests/mergekit_results.py
"""

from __future__ import annotations

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import pico_arms

EVERY = 7
DENSITY = {"ties": 0.25, "breadcrumbs": 0.125}
GAMMA = 1 / 32  # breadcrumbs: the share of the largest that is dropped; every tensor here is of n x 32 elements


def sample(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every seventh element of each tensor."""
    return {name: tensor.reshape(-1)[::EVERY].clone() for name, tensor in weights.items()}


def arms(folder: Path) -> tuple[Path, dict[str, list[Path]]]:
    """The root's manifest, and the chains of two fits."""
    root = pico_arms.root(folder / "pico")
    return root, {name: pico_arms.full(root, folder / name, seed) for name, seed in (("a", 1), ("b", 2))}


def main() -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root, chains = arms(folder)
        for arm, chain in chains.items():
            shutil.copytree(root.parent, folder / f"{arm}-whole")
            shutil.copy(chain[-1].parent / "weights/model.safetensors", folder / f"{arm}-whole/model.safetensors")
        for rule in ("task_arithmetic", "ties", "breadcrumbs"):
            parameters: dict[str, Any] = {"weight": 1.0}
            if rule in DENSITY:
                parameters["density"] = DENSITY[rule]
            if rule == "breadcrumbs":
                parameters["gamma"] = GAMMA
            config = MergeConfiguration.model_validate(
                {
                    "merge_method": rule,
                    "base_model": str(root.parent),
                    "models": [{"model": str(folder / f"{arm}-whole"), "parameters": parameters} for arm in chains],
                    "parameters": {"normalize": rule == "ties"},
                    "dtype": "float32",
                }
            )
            run_merge(config, str(folder / rule), MergeOptions(copy_tokenizer=False))
            merged = load_file(folder / rule / "model.safetensors")
            results |= {f"{rule}/{block}": tensor for block, tensor in sample(merged).items()}
    file = Path(__file__).with_name("mergekit.safetensors")
    save_file(results, file, metadata={"mergekit": version("mergekit")})


if __name__ == "__main__":
    main()
