"""GPUs of one machine, handed out one job at a time.

Snakemake counts GPUs (`resources: {gpu: 2}` in a profile) but assigns none: two jobs would both take the first. So
each job locks the numbers it uses, and sees only those. Under Slurm the scheduler has assigned them already. The locks
lie in the machine's temporary folder, so that other projects and users that run Imprint respect them too; the kernel
drops them with the job.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imprint.errors import ImprintError

POLL = 2.0  # seconds


def present() -> list[str]:
    """What may be used here: CUDA_VISIBLE_DEVICES where it is set, else every GPU of the machine, by its number."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    numbers = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((found.group(1) for found in numbers if found), key=int)


@contextmanager
def held(count: int) -> Iterator[list[str]]:
    """Hold `count` GPUs that no other job holds, and let this process see only them. Waits until they are free; more
    than the machine has is an error, and so is none at all."""
    if count == 0:
        yield []
        return
    names = present()
    if count > len(names):
        raise ImprintError(
            f"resources gpu={count}: this machine has {len(names)} GPU(s)"
            f"{' (' + ', '.join(names) + ')' if names else ''}; ask for fewer, run where they "
            "are, or take the request away (a profile without gpu, or engine.device: cpu)"
        )
    taken: dict[str, int] = {}
    told = False
    try:
        while len(taken) < count:
            for name in names:
                if len(taken) < count and (descriptor := _lock(name)) is not None:
                    taken[name] = descriptor
            if len(taken) < count:
                # Two jobs that each wait for the other's would wait for ever.
                while taken:
                    os.close(taken.popitem()[1])
                if not told:
                    print(f"imprint: waiting for {count} of the GPUs {', '.join(names)}", file=sys.stderr, flush=True)
                    told = True
                time.sleep(POLL)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
        yield list(taken)
    finally:
        for descriptor in taken.values():
            os.close(descriptor)


def _lock(name: str) -> int | None:
    """A descriptor that holds the lock of a GPU, or None when another job does."""
    path = Path(tempfile.gettempdir(), f"imprint-gpu-{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock")
    try:
        # Another user's file can be opened but not created anew in a sticky folder.
        descriptor = os.open(path, os.O_RDONLY) if path.exists() else os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    except OSError as error:
        raise ImprintError(f"{path} cannot be opened ({error.strerror}); remove it, or make it readable") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
