"""What a trainer needs more where several ranks share the weights of its model: how its checkpoints are written and
read. Imports torch, so only fits import this module.

Each rank writes what it holds itself into two files: its part of the trained weights, and of AdamW's moments. Torch has
a form for such checkpoints that another number of ranks can read. Its index is a pickle, and a pickle may call any
function when it is read; a checkpoint is not trusted with that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from imprint.runtime.ranks import Ranks

SCHEDULER = "scheduler.pt"


class Sharded:
    """What comes before transformers' Trainer among the bases of the trainer of one of `_ranks`. transformers calls
    these methods in all ranks."""

    _ranks: Ranks
    args: Any
    model: Any
    optimizer: Any
    lr_scheduler: Any

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        assert output_dir is not None
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        save_file({name: held(weights) for name, weights in self._trained()}, self._file(output_dir, "weights"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        parts = load_file(self._file(resume_from_checkpoint, "weights"))
        with torch.no_grad():
            for name, weights in self._trained():
                held(weights).copy_(parts[name])

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        states = {
            f"{key} {name}": held(state)
            for name, weights in self._trained()
            for key, state in self.optimizer.state[weights].items()
        }
        save_file(states, self._file(output_dir, "optimizer"))
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        weights_of = dict(self._trained())
        for label, state in load_file(self._file(checkpoint, "optimizer")).items():
            key, name = label.split(" ", 1)
            self.optimizer.state[weights_of[name]][key] = _like(weights_of[name], state)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, SCHEDULER), weights_only=True))
        for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate

    def _trained(self) -> Iterator[tuple[str, Any]]:
        return ((name, weights) for name, weights in self.model.named_parameters() if weights.requires_grad)

    def _file(self, folder: str, what: str) -> Path:
        return Path(folder, f"{what}-{self._ranks.place}.safetensors")


def held(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor: all of one that is not shared, such as a factor of an adapter."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor.detach()


def _like(weights: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """A state of `weights`, of which this rank holds `part`. It is shared as they are, unless it is a single number."""
    part = part.to(weights.device)
    if not isinstance(weights, DTensor) or not part.ndim:
        return part
    return DTensor.from_local(
        part, weights.device_mesh, weights.placements, shape=weights.shape, stride=weights.stride()
    )
