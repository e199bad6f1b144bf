"""Locks on the GPUs of one machine, so that no two jobs use the same GPU.

Snakemake counts GPUs (`resources: {gpu: 2}` in a profile) but does not assign them: two jobs would both take the first.
So each job locks the GPUs that it uses, and sees no others. On Slurm this is not needed: the scheduler assigns GPUs.
The locks lie in the machine's temporary folder, so that other projects and users that run Imprint respect them too.
The kernel drops a lock when its job ends.
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

from imprint.runtime.errors import ImprintError

POLL = 2.0  # seconds


def present() -> list[str]:
    """The GPUs that this process may use: those in CUDA_VISIBLE_DEVICES where it is set, else all GPUs of the machine,
    by number."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    matches = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in matches if match), key=int)


@contextmanager
def held(count: int) -> Iterator[list[str]]:
    """Hold `count` GPUs that no other job holds, and let this process see only these; gives their names. Waits until
    they are free. Raises ImprintError where the machine has fewer than `count`."""
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
    announced = False
    try:
        while len(taken) < count:
            for name in names:
                if len(taken) < count and (descriptor := _lock(name)) is not None:
                    taken[name] = descriptor
            if len(taken) < count:
                # A job that waits must hold nothing: two jobs with a part each would wait for each other for ever.
                while taken:
                    os.close(taken.popitem()[1])
                if not announced:
                    print(f"imprint: waiting for {count} of the GPUs {', '.join(names)}", file=sys.stderr, flush=True)
                    announced = True
                time.sleep(POLL)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
        yield list(taken)
    finally:
        for descriptor in taken.values():
            os.close(descriptor)


def _lock(name: str) -> int | None:
    """A file descriptor that holds the lock of a GPU; None where another job holds it."""
    path = Path(tempfile.gettempdir(), f"imprint-gpu-{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock")
    try:
        # In a sticky folder the kernel refuses O_CREAT on a file of another user, even one that exists.
        descriptor = os.open(path, os.O_RDONLY) if path.exists() else os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    except OSError as error:
        raise ImprintError(f"{path} cannot be opened ({error.strerror}); remove it, or make it readable") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
