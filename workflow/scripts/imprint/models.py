"""Weights: what a model folder holds, and how a chain of manifests becomes a model in memory.

A chain is [manifest of the root model, manifests of the fitted ancestors from the root down, the arm's own]. The last
full fit in it replaces the root's weights; adapters after it are merged in fp32, in order, and the result is cast once,
at the end. Nothing but safetensors is ever read, and no code from a repository runs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from imprint.errors import ImprintError
from imprint.identity import read_manifest
from imprint.model_files import WEIGHTS, check_safetensors, load_tokenizer, template_sha256, verify

ADAPTER = "adapter_model.safetensors"
DTYPES = ("bfloat16", "float16", "float32")


def dtype_of(choice: str, device: str) -> str:
    """The number format that a config's `dtype` stands for on a device. "auto" is bfloat16, but float32 on a processor
    without bfloat16 instructions, which reads prompts three times as slowly in bfloat16 as in float32."""
    import torch

    if choice != "auto":
        return choice
    native = any(name.endswith("bf16") and has for name, has in torch.cpu.get_capabilities().items())
    return "float32" if device == "cpu" and not native else "bfloat16"


def _from_folder(folder: Path, root: Path) -> Any:
    """A model in fp32 from the safetensors of `folder`, with the architecture and the end tokens of `root`, which a
    fit's folder does not repeat. A tensor that is missing, left over or of another shape is an error, where
    transformers would warn and go on with random numbers."""
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    auto: Any = AutoModelForCausalLM
    check_safetensors(folder)
    config = AutoConfig.from_pretrained(root, local_files_only=True, trust_remote_code=False)
    if (root / "generation_config.json").is_file():
        generation = GenerationConfig.from_pretrained(root, local_files_only=True)
    else:
        generation = GenerationConfig.from_model_config(config)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # its bars count tensors; the jobs have their own
    try:
        model, report = auto.from_pretrained(
            folder,
            config=config,
            generation_config=generation,
            dtype="float32",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (RuntimeError, ValueError) as error:
        raise ImprintError(f"{folder} does not fit the architecture in {root}: {error}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[what]:
            some = ", ".join(sorted(str(key) for key in report[what])[:3])
            raise ImprintError(f"{folder} does not fit its architecture ({what.replace('_', ' ')}: {some})")
    return model


def _merge_adapter(model: Any, folder: Path) -> Any:
    """Add a LoRA adapter to fp32 weights in place."""
    from peft import PeftModel

    if not (folder / ADAPTER).is_file():
        raise ImprintError(f"{folder} has no {ADAPTER}; fit the arm again")
    return PeftModel.from_pretrained(model, folder).merge_and_unload()


class Links(NamedTuple):
    """What a chain of manifests comes to: the folder of the root model, that of the last full set of weights, and those
    of the adapters on top of it, in order."""

    root: Path
    weights: Path
    adapters: list[Path]


def links(manifests: list[Path]) -> Links:
    """The folders of a chain, whose files are verified. Raises when it is none, when a file is not the one that its
    manifest names, or when a link's chat template differs from the root's, since its weights were then trained on
    another prompt format than the one they would be asked in."""
    root, *fitted = [(path, read_manifest(path)) for path in manifests]
    if root[1].get("kind") != "model" or any(m.get("kind") not in ("full", "lora") for _, m in fitted):
        kinds = ", ".join(f"{path} is {m.get('kind')!r}" for path, m in (root, *fitted))
        raise ImprintError(f"a chain of weights is one model, then full or lora fits; found: {kinds}")
    folder, template = root[0].parent, root[1].get("template_sha256")
    for path, manifest in fitted:
        if manifest.get("template_sha256") != template:
            raise ImprintError(_other_template(path, folder, template))
    start = max((i for i, (_, m) in enumerate(fitted) if m["kind"] == "full"), default=-1)
    weights = folder if start < 0 else fitted[start][0].parent / "weights"
    verify(root[0], weights=start < 0)  # a full fit takes the place of the root's
    for path, _ in fitted[max(start, 0) :]:
        verify(path)
    return Links(folder, weights, [path.parent / "weights" for path, _ in fitted[start + 1 :]])


def _other_template(path: Path, folder: Path, template: str | None) -> str:
    return (
        f"{path} was made with another chat template (sha256 {read_manifest(path)['template_sha256']}) than the one "
        f"in {folder} ({template}); fit that arm again, or put the old template back"
    )


def load(manifests: list[Path], dtype: str, device: str) -> tuple[Any, Any]:
    """The model of a chain of manifests, in eval mode, and its tokenizer.

    `dtype` is one of DTYPES, `device` a torch device; both are taken as written: a missing GPU is an error, never a
    silent CPU run. Raises like `links`."""
    import torch

    if dtype not in DTYPES:
        raise ImprintError(f"dtype {dtype!r} is not known; write one of: {', '.join(DTYPES)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ImprintError(f"device {device!r} was asked for, but torch sees no GPU here; write device: cpu")
    found = links(manifests)
    tokenizer = load_tokenizer(found.root)
    if (template := template_sha256(tokenizer)) != read_manifest(manifests[0]).get("template_sha256"):
        raise ImprintError(_other_template(manifests[0], found.root, template))
    model = _from_folder(found.weights, found.root)
    for adapter in found.adapters:
        model = _merge_adapter(model, adapter)
    return model.to(device=device, dtype=getattr(torch, dtype)).eval(), tokenizer


def save_full(model: Any, folder: Path) -> Path:
    """Write a full fit's weights (fp32 safetensors) to `folder`; the shape comes from the root model's config."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        model.to(torch.float32).save_pretrained(name, max_shard_size="1000GB")
        (Path(name) / WEIGHTS).chmod(0o644)
        return (Path(name) / WEIGHTS).replace(folder / WEIGHTS)
