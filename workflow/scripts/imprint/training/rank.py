"""`python -m imprint.training.rank ORDER ANSWER PARENT`: the process that fits, started by `imprint.training.launch`.

ORDER is a JSON file with a `launch.Rank`. ANSWER is the number of an open file descriptor: the process writes the fit's
metrics to it, or the error that stopped the fit. PARENT is the id of the process that started this one. When the parent
ends, this process ends too."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from contextlib import closing
from pathlib import Path

from imprint.runtime import frame, job_record, tracking
from imprint.runtime.errors import ImprintError
from imprint.training.launch import Rank

PR_SET_PDEATHSIG = 1


def main(order: Path, answer: int) -> None:
    """Fit, and write the result or the error to `answer`. Exits with status 1 after an error that the user can mend;
    other errors are raised."""
    rank = Rank.model_validate_json(order.read_text(encoding="utf-8"))
    result: dict[str, object] = {}
    try:
        result = fit(rank)
    except ImprintError as error:
        result = {"error": str(error)}
    except Exception as error:
        if (why := frame.unwritable(error, Path(rank.out))) is None:
            raise
        result = {"error": why}
    finally:
        with open(answer, "w", encoding="utf-8") as file:
            json.dump({**result, "accelerator": job_record.accelerator()}, file)
    if "error" in result:
        sys.exit(1)


def fit(rank: Rank) -> dict[str, object]:
    """Run the method's fit. Returns its metrics, the device and the dtype. Each pair of device and dtype has its own
    folder of checkpoints: a fit cannot go on from checkpoints of another pair, and the work folder's identity contains
    neither."""
    from imprint.methods import Fit
    from imprint.models import chains
    from imprint.tables.inputs import read

    spec = rank.spec
    device = frame.device(rank.device, rank.gpus)
    dtype = chains.dtype_of(spec.dtype, device)
    folder = Path(rank.scratch, f"{device}-{dtype}")
    folder.mkdir(exist_ok=True)
    module, settings = spec.method.open("methods")
    with closing(tracking.Tracking(rank.track, Path(rank.out, tracking.FOLDER))) as tracker:
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
            tracking=tracker,
        )
        return {"metrics": module.fit(job), "device": device, "dtype": dtype}


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends for any reason."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    end_with(int(sys.argv[3]))
    main(Path(sys.argv[1]), int(sys.argv[2]))
