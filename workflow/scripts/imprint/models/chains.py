"""Weights: what a model folder holds, and how a chain of manifests becomes a model in memory.

A chain is [manifest of the root model, manifests of the fitted ancestors from the root down, the arm's own]. The last
full fit in it replaces the root's weights; adapters after it are merged in fp32, in order, and the result is cast once.
`imprint/artifacts` says what each kind of artifact does to a model. Only safetensors are read, and no code from a
repository runs.

Weights are cast and buffers are not. Among the buffers are the frequencies of rotary positions. They must stay in fp32,
since in bf16 they turn late positions by wrong angles."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal, NamedTuple

from imprint.models.model_files import WEIGHTS, check_safetensors, load_tokenizer, template_sha256, verify
from imprint.runtime import model_sizes, plugins
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import read_manifest

DTYPES = ("bfloat16", "float16", "float32")
Way = Literal["fsdp", "tp"]
"""How ranks share a model. "fsdp" (FSDP2): each keeps a part of every weight, and gathers a layer to compute it. "tp"
(tensor parallelism): each computes with its part of a layer, and the ranks add their results."""
STORED = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
"""A number format in the header of a safetensors file -> one of DTYPES."""


def dtype_of(choice: str, device: str) -> str:
    """One of DTYPES: the number format of a config's `dtype` on a device. "auto" is bfloat16, except on a processor
    without bfloat16 instructions: there it is float32, which reads prompts three times as fast."""
    import torch

    if choice != "auto":
        return choice
    native = any(name.endswith("bf16") and supported for name, supported in torch.cpu.get_capabilities().items())
    return "float32" if device == "cpu" and not native else "bfloat16"


def most_ranks(root: Path, gpus: int) -> int:
    """How many of so many GPUs can share the model in a folder by tensor parallelism (`model_sizes.most_ranks`): one
    where transformers does not say how the model's type is shared."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(root, local_files_only=True, trust_remote_code=False).get_text_config()
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return model_sizes.most_ranks(groups, gpus) if config.base_model_tp_plan else 1


def configs(root: Path) -> tuple[Any, Any]:
    """The config and the generation config of the root model in a folder, as transformers has them."""
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(root, local_files_only=True, trust_remote_code=False)
    if (root / "generation_config.json").is_file():
        return config, GenerationConfig.from_pretrained(root, local_files_only=True)
    return config, GenerationConfig.from_model_config(config)


def _from_folder(folder: Path, root: Path, dtype: str, device: str, ranks: int = 1, way: Way = "fsdp") -> Any:
    """A model whose weights go from the files to the device one by one, in `dtype`. Of several `ranks` each reads its
    part of every weight. The weights are the safetensors of `folder`; the architecture and the end tokens are those of
    `root`, because a fit's folder does not repeat them.

    Raises ImprintError if a tensor is missing, left over or of another shape: transformers would only warn, and go on
    with random numbers."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.distributed.configuration_utils import DistributedConfig
    from transformers.utils import logging

    auto: Any = AutoModelForCausalLM
    check_safetensors(folder)
    config, generation = configs(root)
    if ranks > 1 and way == "fsdp" and not config.base_model_fsdp_plan:
        raise ImprintError(
            f"{root}: transformers does not say how a model of the type {config.model_type!r} is shared by several "
            "GPUs; write `resources: {gpu: 1}` on the arm"
        )
    shares = DistributedConfig(fsdp_size=ranks) if way == "fsdp" else DistributedConfig(tp_size=ranks)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # its bars count tensors; the jobs have their own
    try:
        model, report = auto.from_pretrained(
            folder,
            config=config,
            generation_config=generation,
            dtype=dtype,
            # With the number of the GPU: without it, Trainer takes the model for one that is spread over GPUs.
            device_map=None if device == "cpu" or ranks > 1 else {"": torch.cuda.current_device()},
            distributed_config=shares if ranks > 1 else None,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (RuntimeError, ValueError) as error:
        raise ImprintError(f"{folder} does not fit the architecture in {root}: {error}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            first_keys = ", ".join(sorted(str(key) for key in report[problem])[:3])
            raise ImprintError(f"{folder} does not fit its architecture ({problem.replace('_', ' ')}: {first_keys})")
    return model


class Links(NamedTuple):
    """The folders of a chain of manifests: `root` holds the root model, `weights` the last full set of weights.
    `changes` lists (kind, folder) of the artifacts that change those weights, in order."""

    root: Path
    weights: Path
    changes: list[tuple[str, Path]]


def links(manifests: list[Path]) -> Links:
    """The folders of a chain, with the files verified.

    Raises ImprintError if the chain is anything but one model followed by artifacts of weights, if a file's content is
    not what its manifest says, and if a link's chat template is not the root's: its weights were trained on another
    prompt format than the one they would see."""
    root, *fitted = [(path, read_manifest(path)) for path in manifests]
    if root[1]["kind"] != "model" or not all(_counts_as_weights(manifest["kind"]) for _, manifest in fitted):
        kinds = ", ".join(f"{path} is {manifest['kind']!r}" for path, manifest in (root, *fitted))
        allowed = ", ".join(filter(_counts_as_weights, plugins.names("artifacts")))
        raise ImprintError(f"a chain of weights is one model, then artifacts of weights ({allowed}); found: {kinds}")
    folder, template = root[0].parent, root[1]["template_sha256"]
    for path, manifest in fitted:
        if manifest["template_sha256"] != template:
            raise ImprintError(_other_template(path, folder, template))
    artifacts = [plugins.load("artifacts", manifest["kind"]) for _, manifest in fitted]
    last_full = max((i for i, artifact in enumerate(artifacts) if artifact.REPLACES), default=-1)
    weights = folder if last_full < 0 else fitted[last_full][0].parent / "weights"
    verify(root[0], weights=last_full < 0)  # weights that a full fit replaces are never read
    for path, _ in fitted[max(last_full, 0) :]:
        verify(path)
    return Links(folder, weights, [(manifest["kind"], path.parent) for path, manifest in fitted[last_full + 1 :]])


def _counts_as_weights(kind: str) -> bool:
    return kind in plugins.names("artifacts") and bool(plugins.load("artifacts", kind).WEIGHTS)


def _other_template(path: Path, folder: Path, template: str | None) -> str:
    return (
        f"{path} was made with another chat template (sha256 {read_manifest(path)['template_sha256']}) than the one "
        f"in {folder} ({template}); fit that arm again, or put the old template back"
    )


def tokenizer(manifests: list[Path]) -> Any:
    """The tokenizer of a chain of manifests. Raises ImprintError if the chat template is another one than when the
    model was fetched."""
    root = manifests[0].parent
    loaded = load_tokenizer(root)
    if (template := template_sha256(loaded)) != read_manifest(manifests[0]).get("template_sha256"):
        raise ImprintError(_other_template(manifests[0], root, template))
    return loaded


def load(manifests: list[Path], dtype: str, device: str, ranks: int = 1, way: Way = "fsdp") -> tuple[Any, Any]:
    """The model of a chain of manifests, in eval mode, and its tokenizer.

    `dtype` is one of DTYPES, `device` a torch device. Several `ranks` of one process group load a model together, and
    share it in this `way`. Raises ImprintError for an unknown dtype and a missing GPU (it never falls back to the CPU),
    and like `links` and `tokenizer`."""
    import torch

    if dtype not in DTYPES:
        raise ImprintError(f"dtype {dtype!r} is not known; write one of: {', '.join(DTYPES)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ImprintError(f"device {device!r} was asked for, but torch sees no GPU here; write device: cpu")
    chain = links(manifests)
    own_tokenizer = tokenizer(manifests)
    # A weight that ranks share keeps the dtype in which it was read.
    read_as = _stored(chain.weights) if chain.changes and ranks == 1 else dtype
    model = _from_folder(chain.weights, chain.root, read_as, device, ranks, way)
    for place, (kind, folder) in enumerate(chain.changes, 1):
        last = place == len(chain.changes)
        model = plugins.load("artifacts", kind).install(model, folder, getattr(torch, dtype if last else "float32"))
    for weights in model.parameters():
        weights.data = weights.data.to(getattr(torch, dtype))
    return model.eval(), own_tokenizer


def export(manifests: list[Path], dtype: str, folder: Path) -> None:
    """Put the model of a chain of manifests into an empty folder, for a program that reads the hub's files: the root's
    config, and all weights in safetensors. A chain without adapters is linked. With adapters, the merged weights are
    written in `dtype`, one of DTYPES; the memory for them is free again afterwards. Raises ImprintError like `load`: in
    both cases transformers loads the weights once, since not every program misses a tensor that is not there."""
    chain = links(manifests)
    if chain.changes:
        load(manifests, dtype, "cpu")[0].save_pretrained(folder)
        (folder / "config.json").unlink()
    else:
        _from_folder(chain.weights, chain.root, _stored(chain.weights), "cpu")  # it maps the files, and reads little
        index = chain.weights / f"{WEIGHTS}.index.json"
        for file in (*check_safetensors(chain.weights), *([index] if index.is_file() else [])):
            (folder / file.name).symlink_to(file.resolve())
    (folder / "config.json").symlink_to((chain.root / "config.json").resolve())


def copied(model: Any, dtype: str) -> Any:
    """A copy of a model with its weights in `dtype`, one of DTYPES, in eval mode. Each weight is cast while it is
    copied, so no second copy in the model's own dtype is made."""
    import torch

    cast = {
        id(weights): torch.nn.Parameter(weights.detach().to(getattr(torch, dtype), copy=True), requires_grad=False)
        for weights in model.parameters()
    }
    return copy.deepcopy(model, cast).eval()


def _stored(folder: Path) -> str:
    """The dtype in which the weights of a folder lie; float32 where they differ."""
    from safetensors import safe_open

    formats = set()
    for file in check_safetensors(folder):
        with safe_open(file, framework="np") as handle:
            formats |= {handle.get_slice(name).get_dtype() for name in handle.keys()}  # noqa: SIM118
    return STORED.get(formats.pop(), "float32") if len(formats) == 1 else "float32"
