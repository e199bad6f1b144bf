"""Safetensors read and written one tensor at a time.

Reading maps a file into memory. A tensor then costs address space and page cache, which the kernel can take back, but
no memory of the process. Writing holds one tensor at a time. Only fits import this module, because it imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from imprint.models.model_files import check_safetensors
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import atomic

_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.bool: "BOOL"}


class TensorFolder:
    """The tensors of a folder's weights, which are one file or several shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        handles: list[Any] = [safe_open(file, framework="pt") for file in check_safetensors(folder)]
        # All views are made now: making one costs 0.3 ms, and composing reads each tensor many times, in pieces.
        self._tensors: dict[str, torch.Tensor] = {
            name: handle.get_tensor(name)
            for handle in handles
            for name in handle.keys()  # noqa: SIM118
        }

    @property
    def names(self) -> list[str]:
        """Names of the tensors, sorted."""
        return sorted(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def read(self, name: str) -> torch.Tensor:
        """A tensor in the file's dtype. It is a view of the mapped file: do not write to it."""
        return self._tensors[name]


def write(
    path: Path, shapes: Iterable[tuple[str, tuple[int, ...], torch.dtype]], read: Callable[[str], torch.Tensor]
) -> None:
    """Write a safetensors file, atomically. `shapes` announces (name, shape, dtype) of every tensor; `read(name)` makes
    the tensors, one at a time and in that order. Raises ImprintError if a tensor has another shape or dtype."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape, dtype in shapes:
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)  # the format wants aligned data; 64 bytes are a cache line
    with atomic(path) as temporary, temporary.open("wb", buffering=0) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            tensor = read(name).detach().cpu().contiguous()
            if _NAMES.get(tensor.dtype) != entry["dtype"] or list(tensor.shape) != entry["shape"]:
                raise ImprintError(f"{path}: tensor '{name}' is {tensor.dtype} {list(tensor.shape)}, announced {entry}")
            data, done = memoryview(tensor.view(-1).view(torch.uint8).numpy()), 0  # type: ignore[arg-type]
            while done < len(data):  # Linux writes at most 2 GiB a call
                done += file.write(data[done : done + (1 << 30)])
