"""The ranks of a job: the processes that share a model, one for each GPU, and what they tell each other.

All ranks of a fit run the same method. Each holds its part of every weight (FSDP2), and takes its part of the rows of
an update. Those of an engine answer the same prompts (engines/_shared.py). A call in which a rank waits for the others
must be made by all of them, in the same order. A fit on one device is one rank, and these calls then do nothing.
Imports torch inside functions, since methods import this module."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from imprint.runtime.plugins import Strict

WAIT = timedelta(hours=4)
"""How long a rank waits for another one, which may be hashing a large checkpoint. If a rank dies, its parent ends all
of them at once, so no one waits for the dead."""
SUMS = {"NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple", "NCCL_NVLS_ENABLE": "0", "NCCL_COLLNET_ENABLE": "0"}
"""NCCL's settings with which GPUs add in the same order each time, so that a fit repeats to the bit."""

STORE = "ranks.store"
"""The file in the work folder through which the ranks of one machine find each other."""


class Door(Strict):
    """Where the ranks of several machines find each other: at a `port` of the first one, whose name is `host`. Rank 0
    has the socket that listens there, as the open file descriptor `socket`."""

    host: str
    port: int
    socket: int


class Ranks(NamedTuple):
    """One rank: its place among `size` of them, counted from 0. Rank 0 writes the results. Each of the `nodes`, the
    machines, has as many ranks as the others, whose places follow each other."""

    place: int = 0
    size: int = 1
    nodes: int = 1

    @property
    def of_node(self) -> int:
        """How many ranks each machine has."""
        return self.size // self.nodes

    @property
    def place_on_node(self) -> int:
        """The place among the ranks of this machine, which is the number of the rank's GPU."""
        return self.place % self.of_node

    def environment(self, device: str, threads: int) -> dict[str, str]:
        """The environment variables that libraries read in this rank. `device` is the config's, `threads` the rank's
        share."""
        if self.size == 1:
            return {}
        place = {"RANK": str(self.place), "LOCAL_RANK": str(self.place_on_node)}
        size = {"WORLD_SIZE": str(self.size), "LOCAL_WORLD_SIZE": str(self.of_node)}
        # Where all ranks are on one machine, gloo must not listen on its network. On the CPU, transformers would put
        # the weights on any GPU that it sees.
        network = {"GLOO_SOCKET_IFNAME": "lo"} if self.nodes == 1 else {}
        where = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else SUMS
        return {**place, **size, "OMP_NUM_THREADS": str(threads), **network, **where}

    @contextmanager
    def joined(self, device: str, meeting: Path | Door) -> Iterator[None]:
        """Join the other ranks, and leave them at the end of the block. `device` is "cpu" or "cuda"; a rank takes the
        GPU of its place on its machine. They find each other at the `meeting`: a file, or the door of the first
        machine."""
        if self.size > 1:
            import torch
            from torch import distributed

            if device == "cuda":
                torch.cuda.set_device(self.place_on_node)
            distributed.init_process_group(
                "nccl" if device == "cuda" else "gloo",
                store=self._store(meeting),
                rank=self.place,
                world_size=self.size,
                timeout=WAIT,
            )
        yield
        if self.size > 1:  # after an error the others may be anywhere, so this rank just ends
            distributed.destroy_process_group()

    def _store(self, meeting: Path | Door) -> Any:
        """Torch's store at the meeting."""
        from torch import distributed

        if isinstance(meeting, Path):
            return distributed.FileStore(str(meeting), self.size)  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"] = meeting.host  # accelerate asks for it on several machines, and does not use it
        first = self.place == 0
        return distributed.TCPStore(  # type: ignore[attr-defined]
            "localhost" if first else meeting.host,
            meeting.port,
            self.size,
            is_master=first,
            master_listen_fd=meeting.socket if first else None,
            wait_for_workers=False,
            timeout=WAIT,
        )

    def total(self, number: int) -> int:
        """The sum of the ranks' numbers."""
        import torch

        return int(self.sum(torch.tensor(number)))

    def sum(self, tensor: Any) -> Any:
        """The sum of the ranks' tensors, on the CPU. It has the same bits in all ranks. A single rank gets its own
        tensor back, where it lies."""
        if self.size == 1:
            return tensor
        from torch import distributed

        total = tensor.to("cuda" if distributed.get_backend() == "nccl" else "cpu", copy=True)
        distributed.all_reduce(total)
        return total.cpu()

    def rows(self, number: int) -> slice:
        """Those of a tensor's `number` rows that this rank holds where the ranks share a model (FSDP2): all have as
        many but the last ones, which have what is left."""
        most = -(-number // self.size)
        return slice(min(number, most * self.place), min(number, most * (self.place + 1)))

    def first(self, do: Callable[[], Any]) -> Any:
        """What rank 0 gets from `do`, which no other rank calls. The others wait for it."""
        if self.size == 1:
            return do()
        from torch import distributed

        got = [do() if self.place == 0 else None]
        distributed.broadcast_object_list(got)
        return got[0]

    def of_all(self, values: list[Any]) -> list[Any]:
        """The values of all ranks, those of rank 0 first."""
        if self.size == 1:
            return values
        from torch import distributed

        lists: list[list[Any]] = [[]] * self.size
        distributed.all_gather_object(lists, values)
        return [value for each in lists for value in each]

    def wait(self) -> None:
        """Wait until all ranks are here."""
        self.total(0)
