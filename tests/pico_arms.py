"""A pico model with its manifest, and arms fitted to it in a moment: its weights plus small random differences, or a
random LoRA adapter. What the tests of task vectors compose."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import pico
from imprint.models import model_files, tensor_files
from imprint.runtime.identity import read_json, write_json

Change = Callable[[str, torch.Tensor], torch.Tensor | None]


def root(folder: Path, seed: int = 0, tied: bool = True, width: int = 32) -> Path:
    """The manifest of a pico model."""
    pico.make(folder, seed, tied, width)
    template = model_files.template_sha256(model_files.load_tokenizer(folder))
    write_json(folder / "manifest.json", {"kind": "model", "fingerprint": folder.name, "template_sha256": template})
    return pico.sums(folder / "manifest.json")


def manifest(base: Path, folder: Path, kind: str) -> Path:
    """The manifest of a fit whose weights lie in a folder."""
    template = read_json(base)["template_sha256"]
    write_json(folder / "manifest.json", {"kind": kind, "fingerprint": folder.name, "template_sha256": template})
    return pico.sums(folder / "manifest.json")


def full(base: Path, folder: Path, seed: int = 1, size: float = 0.02, change: Change | None = None) -> list[Path]:
    """The chain of a full fit: Gaussian differences of standard deviation `size`, or what `change` makes of a tensor
    (None leaves it out)."""
    draw = torch.Generator().manual_seed(seed)
    made = {}
    for name, tensor in sorted(load_file(base.parent / "model.safetensors").items()):
        new = tensor + size * torch.randn(tensor.shape, generator=draw)
        if change is not None:
            new = change(name, tensor)
        if new is not None:
            made[name] = new.contiguous()
    (folder / "weights").mkdir(parents=True)
    save_file(made, folder / "weights" / "model.safetensors", metadata={"format": "pt"})
    return [base, manifest(base, folder, "full")]


def lora(
    base: Path, folder: Path, seed: int = 1, below: list[Path] | None = None, also: Sequence[str] = ()
) -> list[Path]:
    """The chain of a LoRA fit of rank 3, on the root or on another chain: every linear layer of the first layer, and
    `also` others."""
    draw = torch.Generator().manual_seed(seed)
    shapes = tensor_files.TensorFolder(base.parent)
    tensors = {}
    for name in [*shapes.names, *also]:
        if (".layers.0." in name and name.endswith("proj.weight")) or name in also:
            out, width = shapes.shape("model.embed_tokens.weight" if name == "lm_head.weight" else name)
            stem = "base_model.model." + name.removesuffix(".weight")
            tensors[f"{stem}.lora_A.weight"] = torch.randn(3, width, generator=draw) / 10
            tensors[f"{stem}.lora_B.weight"] = torch.randn(out, 3, generator=draw) / 10
    targets = sorted({name.split(".")[-3] for name in tensors})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 3, "lora_alpha": 6, "bias": "none",
        "target_modules": targets, "layers_to_transform": [0], "inference_mode": True,
    }  # fmt: skip
    (folder / "weights").mkdir(parents=True)
    save_file(tensors, folder / "weights" / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "weights" / "adapter_config.json").write_text(json.dumps(config))
    return [*(below or [base]), manifest(base, folder, "lora")]
