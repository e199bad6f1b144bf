"""The bytes of the torch tensors that are alive while a fit or an engine runs, and their peak.

Tensors that a kernel makes and frees inside itself are not seen; those that autograd keeps for the backward pass are.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from imprint.models import chains


class Live(TorchDispatchMode):
    """While it is open, `now` counts the bytes of the storages that operators have given, and `peak` keeps the most of
    `now`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self.count(leaf)
        return result

    def count(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, once, until it is freed."""
        storage: Any = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@contextmanager
def live() -> Iterator[Live]:
    """A `Live` that is open. The weights that `chains.load` maps from a file count too."""
    load, tensors = chains.load, Live()

    def counted(*arguments: Any) -> Any:
        model, tokenizer = load(*arguments)
        for parameter in model.parameters():
            tensors.count(parameter)
        return model, tokenizer

    with mock.patch.object(chains, "load", counted), tensors:
        yield tensors
