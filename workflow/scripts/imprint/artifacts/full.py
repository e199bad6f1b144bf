"""All weights of a model, fp32 safetensors under `weights/`; their shape comes from the root model's config."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imprint.models.model_files import WEIGHTS as FILE

REPLACES = True


def install(model: Any, folder: Path, dtype: Any) -> Any:
    """The model itself: `chains.load` has read it from the chain's last artifact of this kind."""
    return model


def save(model: Any, folder: Path) -> None:
    """Write a model's weights. Ranks that share a model all call this. They gather the weights in the host memory of
    the first one, which writes them."""
    import torch

    weights = _emptied(folder)
    whole = _gathered(model) if torch.distributed.is_initialized() else None
    if whole == {}:  # of a rank other than the first
        return
    with tempfile.TemporaryDirectory(dir=weights) as name:
        model.to(torch.float32).save_pretrained(name, max_shard_size="1000GB", state_dict=whole)
        (Path(name) / FILE).chmod(0o644)
        (Path(name) / FILE).replace(weights / FILE)


def _gathered(model: Any) -> dict[str, Any]:
    """The whole weights of a model that ranks share, as `save_pretrained` takes them for a model of one process;
    nothing in ranks other than the first. By itself, `save_pretrained` would gather and write tied weights twice."""
    from transformers.distributed.utils import gather_full_state_dict

    whole = gather_full_state_dict(model)
    model.config.distributed_config = None
    return {name: weights for name, weights in whole.items() if name not in model.all_tied_weights_keys}


def write(folder: Path, shapes: Any, read: Callable[[str], Any]) -> None:
    """Write weights tensor by tensor: `shapes` lists (name, shape, dtype), `read` gives a tensor by name."""
    from imprint.models import tensor_files

    tensor_files.write(_emptied(folder) / FILE, shapes, read)


def _emptied(folder: Path) -> Path:
    """The empty folder of the weights. An earlier fit may have left files of another kind there."""
    shutil.rmtree(folder / "weights", ignore_errors=True)
    (folder / "weights").mkdir(parents=True)
    return folder / "weights"
