"""The weights of a `given` fit: what is checked of them, and how they come into the arm's folder.

The folder is another's work. Nothing in it is run: configs and tokenizers are read as JSON, and PEFT gets a config that
is written here."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imprint.artifacts import lora
from imprint.methods import _given_words as words
from imprint.models import chains, folders
from imprint.models.model_files import WEIGHTS
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_manifest, write_json

PIECE = 1 << 22
"""The most elements that are compared at a time: 16 MiB in fp32."""
UNRELATED = 1.0
"""Weights whose distance from their base is this share of the base's norm are no fine-tune of it. That of a fine-tune
is far below; that of two unrelated models is about the square root of 2."""
ARCHITECTURE = (
    *("model_type", "hidden_act", "tie_word_embeddings", "num_hidden_layers", "num_attention_heads", "head_dim"),
    *("num_key_value_heads", "rms_norm_eps", "layer_norm_eps", "rope_parameters", "sliding_window", "layer_types"),
)
"""Keys of a model's config that change what equal tensors compute."""
UNDERSTOOD = frozenset({
    *("peft_type", "task_type", "r", "lora_alpha", "use_rslora", "lora_dropout", "inference_mode", "init_lora_weights"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),  # the tensors' names say them
    *("base_model_name_or_path", "revision", "peft_version", "auto_mapping", "runtime_config"),
})  # fmt: skip
"""Keys of PEFT's config that may have any value, since they are either read here or say nothing about the weights."""
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal")
"""Initialisations of an adapter that leave the base as it is; others, such as PiSSA's, change it."""


class Base:
    """What given weights must fit: the root model of the arm's parent."""

    def __init__(self, manifests: list[Path]) -> None:
        from imprint.composition.vectors import Blocks

        self.root = chains.links(manifests).root
        self.blocks = Blocks(self.root)
        self.template = read_manifest(manifests[0])["template_sha256"]

    def check_words(self, folder: Path) -> None:
        """Raise ImprintError where a folder has other tokens or another chat template than the base."""
        words.check_tokens(folder, self.root)
        words.check_template(folder, self.template)


def adapter(folder: Path, base: Base, out: Path) -> dict[str, Any]:
    """Check a LoRA adapter, and bring it under `out`. Returns its rank, its alpha and the base that it names."""
    config = _plain(folder)
    named = config.get("base_model_name_or_path")
    print(f"{folder} names its base as {named!r:.200}; the arm's root model is {base.root}", flush=True)
    changed = set()
    for block, (_, b, a) in lora.pairs(folder, base.blocks, f"given, with the base {named!r:.100}"):
        if block in base.blocks.alias.values():
            raise ImprintError(
                f"{folder} changes the output layer, which is the embedding too ('{block}'): the two would change "
                "together here, and did not in training; give a merged model instead"
            )
        if b.shape[1] != config["r"]:
            raise ImprintError(f"{folder}: block '{block}' has rank {b.shape[1]}, but {lora.CONFIG} says {config['r']}")
        if not (math.isfinite(float(b.abs().sum())) and math.isfinite(float(a.abs().sum()))):
            raise ImprintError(f"{folder} holds NaN or Inf in block '{block}'; give another checkpoint")
        changed.add(block)
    if not changed:
        raise ImprintError(f"{folder} holds no LoRA factors, so it changes nothing; give another checkpoint")
    weights = _emptied(out)
    folders.bring(folder / lora.FILE, weights / lora.FILE)
    kept = {key: config[key] for key in ("peft_type", "r", "lora_alpha")}
    targets = sorted(block.removesuffix(".weight") for block in changed)
    rules = {"task_type": "CAUSAL_LM", "bias": "none", "inference_mode": True, "target_modules": targets}
    write_json(weights / lora.CONFIG, {**kept, **rules, "use_rslora": bool(config.get("use_rslora"))})
    return {"rank": config["r"], "alpha": config["lora_alpha"], "base": None if named is None else str(named)[:200]}


def _plain(folder: Path) -> dict[str, Any]:
    """PEFT's config of a folder. Raises ImprintError for what is no plain LoRA: a low-rank change of linear layers, of
    one rank and scale, and nothing else."""
    from peft import LoraConfig

    if not (folder / lora.FILE).is_file():
        raise ImprintError(f"{folder} has {lora.CONFIG} but no {lora.FILE}; save the adapter as safetensors")
    default: dict[str, Any] = LoraConfig().to_dict()  # type: ignore[no-untyped-call]
    config = words.read(folder / lora.CONFIG)
    refuse = f"{folder} is no plain LoRA adapter ({lora.CONFIG} has"
    if config.get("peft_type") != "LORA":
        raise ImprintError(
            f"{refuse} peft_type {config.get('peft_type')!r:.40}); merge it into its model and give that"
        )
    for key, value in sorted(config.items()):
        if key not in UNDERSTOOD and value not in (default.get(key), None, False, [], {}):
            raise ImprintError(f"{refuse} {key}: {value!r:.80}); merge it into its model and give that")
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        raise ImprintError(
            f"{refuse} init_lora_weights: {config['init_lora_weights']!r:.40}), which changes the base too; convert it "
            "to plain LoRA with PEFT's path_initial_model_for_weight_conversion"
        )
    r, alpha = config.get("r"), config.get("lora_alpha")
    if not (isinstance(r, int) and r > 0 and isinstance(alpha, int | float) and math.isfinite(alpha)):
        raise ImprintError(
            f"{refuse} r: {r!r:.40} and lora_alpha: {alpha!r:.40}); both must be numbers, and r positive"
        )
    return config


def model(folder: Path, base: Base, out: Path) -> dict[str, Any]:
    """Check a fine-tuned model, and bring its weights under `out`. Returns its distance from the root model, as a share
    of the root model's norm."""
    from imprint.models.tensor_files import TensorFolder

    _check_architecture(folder, base.root)
    tensors, root = TensorFolder(folder), TensorFolder(base.root)
    known = base.blocks.shapes.keys() | base.blocks.alias.keys()
    if further := [name for name in tensors.names if name not in known]:
        raise ImprintError(
            f"{folder} has {len(further)} tensors that the root model lacks ({', '.join(further[:3])}); it is a model "
            "of another architecture, or it is quantized"
        )
    _check_embedding(tensors, base)
    theirs, ours = base.blocks.files(tensors, "given"), base.blocks.files(root, "given")
    change = norm = 0.0
    for block in base.blocks.shapes:
        tensor = tensors.read(theirs[block])
        if (dtype := str(tensor.dtype).removeprefix("torch.")) not in chains.DTYPES:
            raise ImprintError(
                f"{folder}: block '{block}' has {dtype} numbers, so it is quantized; give weights in one of: "
                f"{', '.join(chains.DTYPES)}"
            )
        block_change = 0.0
        for piece, of_root in _pieces(tensor, root.read(ours[block])):
            block_change += float((piece - of_root).double().square().sum())
            norm += float(of_root.double().square().sum())
        if not math.isfinite(block_change):
            raise ImprintError(f"{folder} holds NaN or Inf in block '{block}'; give another checkpoint")
        change += block_change
    share = math.sqrt(change / norm)
    if share >= UNRELATED:
        raise ImprintError(
            f"{folder} is no fine-tune of {base.root}: its distance from it is {share:.2f} of the model's norm, as "
            "between unrelated models; write the model that it was trained on as the root of the arm"
        )
    _link_shards(folder, _emptied(out))
    return {"distance": float(f"{share:.6g}")}


def _pieces(tensor: Any, of_root: Any) -> Iterator[tuple[Any, Any]]:
    """Equal pieces of two tensors, in fp32."""
    flat, root = tensor.view(-1), of_root.view(-1)
    for start in range(0, len(flat), PIECE):
        yield flat[start : start + PIECE].float(), root[start : start + PIECE].float()


def _check_embedding(tensors: Any, base: Base) -> None:
    """Raise ImprintError where the embedding has another number of rows than the root model's."""
    for block, (rows, *rest) in base.blocks.shapes.items():
        if "embed" in block and block in tensors.names and (shape := tensors.shape(block)) != (rows, *rest):
            raise ImprintError(
                f"{tensors.folder} has another embedding than the root model: '{block}' is {list(shape)}, not "
                f"{[rows, *rest]}. Where its vocabulary was resized in training, it has tokens that the root model "
                "lacks, and no arm beside it could be asked with them"
            )


def _check_architecture(folder: Path, root: Path) -> None:
    """Raise ImprintError where a folder has a config by which equal tensors compute something else."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        return
    raw, of_root = words.read(folder / "config.json"), words.read(root / "config.json")
    for key in ("model_type", "num_hidden_layers"):  # before the config is loaded, which makes a list of the layers
        if raw.get(key) != of_root.get(key):
            raise ImprintError(f"{folder} has {key} {raw.get(key)!r:.40}, but its root model {of_root.get(key)!r:.40}")
    try:
        theirs, ours = (
            AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False).to_dict()
            for path in (folder, root)
        )
    except Exception as error:  # the file is another's, so any error can come out of it
        raise ImprintError(f"{folder}: transformers cannot read its config.json ({error})") from error
    for key in ARCHITECTURE:
        if not _alike(theirs.get(key), ours.get(key)):
            raise ImprintError(
                f"{folder} has {key} {theirs.get(key)!r:.80}, but its root model {ours.get(key)!r:.80}; equal tensors "
                "compute something else there, so it is no fit of this model"
            )


def _alike(one: Any, other: Any) -> bool:
    """Whether two values of configs are equal; a number that went through fp32 still is."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(_alike(one.get(key), other.get(key)) for key in {**one, **other})
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)


def _link_shards(folder: Path, weights: Path) -> None:
    """Link a model's safetensors under names of ours."""
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        folders.bring(folder / WEIGHTS, weights / WEIGHTS)
        return
    places: dict[str, str] = words.read(index)["weight_map"]
    files = sorted(set(places.values()))
    names = {file: f"model-{i:05}-of-{len(files):05}.safetensors" for i, file in enumerate(files, 1)}
    for file, name in names.items():
        folders.bring(folder / file, weights / name)
    weight_map = {tensor: names[file] for tensor, file in places.items()}
    write_json(weights / index.name, {"metadata": {}, "weight_map": weight_map})


def _emptied(out: Path) -> Path:
    """The empty folder of the arm's weights. An earlier fit may have left files there."""
    weights = out / "weights"
    shutil.rmtree(weights, ignore_errors=True)
    weights.mkdir(parents=True)
    return weights
