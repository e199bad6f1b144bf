"""The engine `vllm` with vLLM's batch invariance: in bf16 too, a response does not depend on the rest of its batch. Its
kernels are slower, and there are none for the CPU."""

from __future__ import annotations

from pathlib import Path

from imprint.engines import Running, vllm
from imprint.runtime.errors import ImprintError

CAN = vllm.CAN - {"sample"}


def start(chain: list[Path], dtype: str, device: str, batch_size: int, ranks: int = 1) -> Running:
    """The engine with the weights of a chain of manifests. Raises ImprintError on a CPU."""
    if device == "cpu":
        raise ImprintError(
            "vLLM has batch invariance on GPUs only; on a CPU write the engine vllm, with `engine: {dtype: float32}`"
        )
    return vllm.Engine(chain, dtype, device, batch_size, ranks, batch_invariant=True)


def ranks(chain: list[Path], gpus: int) -> int:
    """As many GPUs as the engine `vllm` takes."""
    return vllm.ranks(chain, gpus)
