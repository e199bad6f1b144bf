"""`python -m imprint.training.rank ORDER ANSWER PARENT`: one process of a fit, started by `imprint.training.launch`.

It reads what to do from the file ORDER, hands the method what it asked for, and writes its metrics, or why it stopped,
to the open file of the number ANSWER. It ends with the process PARENT, which started it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from imprint.runtime import frame, job_record
from imprint.runtime.errors import ImprintError
from imprint.training.launch import Rank

PR_SET_PDEATHSIG = 1


def main(order: Path, answer: int) -> None:
    """Fit, and tell how it went."""
    rank = Rank.model_validate_json(order.read_text(encoding="utf-8"))
    told: dict[str, object] = {}
    try:
        told = fit(rank)
    except ImprintError as error:
        told = {"error": str(error)}
    except Exception as error:
        if (why := frame.unwritable(error, Path(rank.out))) is None:
            raise
        told = {"error": why}
    finally:
        with open(answer, "w", encoding="utf-8") as file:
            json.dump({**told, "accelerator": job_record.accelerator()}, file)
    if "error" in told:
        sys.exit(1)


def fit(rank: Rank) -> dict[str, object]:
    """Let the method work. Checkpoints of another device or number format are no beginning of this fit, so each has a
    folder of its own; the artifact's identity has neither."""
    from imprint.methods import Fit
    from imprint.models import chains
    from imprint.tables.inputs import read

    spec = rank.spec
    device = frame.device(rank.device, rank.gpus)
    dtype = chains.dtype_of(spec.dtype, device)
    folder = Path(rank.scratch, f"{device}-{dtype}")
    folder.mkdir(exist_ok=True)
    module, settings = spec.method.open("methods")
    job = Fit(
        arm=spec.arm,
        seed=spec.seed,
        settings=settings,
        contexts=spec.contexts,
        manifests=[Path(path) for path in rank.manifests],
        folder=folder,
        out=Path(rank.out),
        threads=rank.threads,
        device=device,
        dtype=dtype,
        inputs=read(spec.inputs, map(Path, rank.datasets), map(Path, rank.runs), spec.limit),
    )
    return {"metrics": module.fit(job), "device": device, "dtype": dtype}


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, however that ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    end_with(int(sys.argv[3]))
    main(Path(sys.argv[1]), int(sys.argv[2]))
