"""A low-rank adapter (arXiv 2106.09685) as PEFT writes it, under `weights/`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imprint.artifacts import Factors
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_object

FILE = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
ANOTHER = "so the adapter was trained on another model; write that one as the root of its arm"


def install(model: Any, folder: Path, dtype: Any) -> Any:
    """Merge the adapter into the model's weights, layer by layer, so that one layer at a time is in fp32. Raises
    ImprintError if its file is missing."""
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not (folder / "weights" / FILE).is_file():
        raise ImprintError(f"{folder / 'weights'} has no {FILE}; fit the arm again")
    adapted = PeftModel.from_pretrained(model, folder / "weights", torch_device=str(model.device))
    for layer in adapted.modules():
        if isinstance(layer, BaseTunerLayer):
            with _whole(layer) as weights:
                weights.data = weights.data.float()
                layer.merge()
                weights.data = weights.data.to(dtype)
    return adapted.unload().requires_grad_(True)  # PEFT freezes the model, and a fit of all weights may follow


@contextmanager
def _whole(layer: Any) -> Iterator[Any]:
    """The weight below an adapter's layer. Where ranks share the weight (and the factors, in tensor parallelism), the
    whole of them is in their place during the block, and each rank takes over its part of the weight afterwards."""
    import torch
    from torch.distributed.tensor import DTensor, distribute_tensor

    base = layer.get_base_layer()
    shared = base.weight
    for module in layer.modules():
        for name, part in list(module.named_parameters(recurse=False)):
            if isinstance(part.data, DTensor):
                setattr(module, name, torch.nn.Parameter(part.data.full_tensor(), requires_grad=False))
    yield base.weight
    if base.weight is not shared:
        # Without a source, each rank takes its part from its own copy; all have merged the same.
        parts = distribute_tensor(base.weight.data, shared.device_mesh, shared.placements, src_data_rank=None)
        shared.data.to_local().copy_(parts.to_local())
        base.weight = shared


def save(model: Any, folder: Path) -> None:
    """Write the adapter of a PEFT model."""
    weights = folder / "weights"
    shutil.rmtree(weights, ignore_errors=True)  # an earlier fit may have left files of another kind
    weights.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=weights) as name:
        for config in model.peft_config.values():
            config.base_model_name_or_path = None
            if isinstance(config.target_modules, set):  # PEFT writes a set in no fixed order
                config.target_modules = sorted(config.target_modules)
        model.save_pretrained(name, save_embedding_layers=False)
        for file in (FILE, CONFIG):
            (Path(name) / file).chmod(0o644)
            (Path(name) / file).replace(weights / file)


def factors(folder: Path, blocks: Any, arm: str) -> Iterator[tuple[str, Factors]]:
    """(block, factors) of every block that the adapter changes. Raises ImprintError like `pairs`."""
    yield from pairs(folder / "weights", blocks, f"task vector '{arm}'")


def pairs(weights: Path, blocks: Any, where: str) -> Iterator[tuple[str, Factors]]:
    """(block, factors) of every block that the adapter in the folder `weights` changes. Raises ImprintError for
    adapters that are more than s * B A, and for blocks that the root model lacks or has in another shape; `where`
    begins the message."""
    from safetensors import safe_open

    config = read_object(weights / CONFIG)
    for key in ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias"):
        if config.get(key):
            raise ImprintError(f"{where}: {weights} has {key}: {config[key]}; only plain LoRA has factors")
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    with safe_open(weights / FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    suffixes = (".lora_A.weight", ".lora_B.weight")
    for name in tensors:
        if not name.endswith(suffixes):
            raise ImprintError(f"{where}: {weights} has a tensor '{name}', no LoRA factor of a layer")
    for name in sorted(tensors):
        if name.endswith(suffixes[0]):
            stem = name.removesuffix(suffixes[0])
            named = stem.removeprefix("base_model.model.") + ".weight"
            block = blocks.alias.get(named, named)
            b, a = tensors.get(stem + suffixes[1]), tensors[name]
            if block not in blocks.shapes or b is None:
                raise ImprintError(f"{where}: {weights} changes a block '{named}' that the root model lacks; {ANOTHER}")
            if (b.shape[0], a.shape[1]) != blocks.shapes[block] or b.shape[1] != a.shape[0]:
                raise ImprintError(
                    f"{where}: block '{block}' is {list(blocks.shapes[block])} in the root model, but "
                    f"{[b.shape[0], a.shape[1]]} (rank {b.shape[1]} and {a.shape[0]}) in {weights}; {ANOTHER}"
                )
            yield block, Factors(scale, b, a)
