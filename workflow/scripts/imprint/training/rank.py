"""`python -m imprint.training.rank ORDER ANSWER PARENT PLACE`: a process that fits, started by
`imprint.training.children`.

ORDER is a JSON file with a `launch.Rank`. ANSWER is the number of an open file descriptor: the process writes the fit's
metrics to it, or the error that stopped the fit. PARENT is the id of the process that started this one. When the parent
ends, this process ends too. PLACE is the process's place among the ranks of the fit (`runtime/ranks.py`)."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path

from imprint.runtime import frame, job_record, parents, tracking
from imprint.runtime.errors import ImprintError, shown
from imprint.runtime.ranks import STORE, Ranks
from imprint.training.launch import Rank


def main(order: Path, answer: int, place: int) -> None:
    """Fit, and write the result or the error to `answer`. Exits with status 1 after an error that the user can mend;
    other errors are raised."""
    rank = Rank.model_validate_json(order.read_text(encoding="utf-8"))
    result: dict[str, object] = {}
    try:
        result = fit(rank, Ranks(place, rank.size, rank.nodes))
    except ImprintError as error:
        result = {"error": str(error)}
    except Exception as error:
        result = {"failed_at": time.time()}  # the ranks that wait for this one fail later
        if (why := frame.unwritable(error, Path(rank.out))) is None:
            raise
        result = {"error": why}
    finally:
        with open(answer, "w", encoding="utf-8") as file:
            json.dump({**result, "used": job_record.used()}, file)
    if "error" in result:
        sys.exit(1)


def fit(rank: Rank, ranks: Ranks) -> dict[str, object]:
    """Run the method's fit. Returns its metrics, the device and the dtype. What ranks other than the first write is
    thrown away with the work folder."""
    from imprint.methods import Fit
    from imprint.models import chains
    from imprint.tables.inputs import read

    spec, scratch = rank.spec, Path(rank.scratch)
    device = frame.device(rank.device, rank.gpus)
    dtype = chains.dtype_of(spec.dtype, device)
    folder = checkpoint_folder(scratch, f"{device}-{dtype}", ranks)
    out = Path(rank.out) if ranks.place == 0 else scratch / f"rank{ranks.place}"
    out.mkdir(exist_ok=True)
    module, settings = spec.method.open("methods")
    tracking_folder = Path(rank.out, tracking.FOLDER)
    with (
        ranks.joined(device, rank.door or scratch / STORE),
        closing(tracking.Tracking(rank.track if ranks.place == 0 else "", tracking_folder)) as tracker,
    ):
        job = Fit(
            arm=spec.arm,
            seed=spec.seed,
            settings=settings,
            contexts=spec.contexts,
            manifests=[Path(path) for path in rank.manifests],
            folder=folder,
            out=out,
            threads=rank.threads,
            device=device,
            dtype=dtype,
            inputs=read(spec.inputs, map(Path, rank.datasets), map(Path, rank.runs), spec.limit),
            tracking=tracker,
            ranks=ranks,
        )
        return {"metrics": module.fit(job), "device": device, "dtype": dtype}


def checkpoint_folder(scratch: Path, where: str, ranks: Ranks) -> Path:
    """The folder of the fit's checkpoints, which is there afterwards. Each device with a dtype (`where`), and each
    number of ranks, has one of its own: a fit cannot go on from checkpoints of another, and the work folder's identity
    contains none of them. Rank 0 says on stderr if the fit has checkpoints of another number of ranks."""
    folder = scratch / (where if ranks.size == 1 else f"{where}-{ranks.size}ranks")
    folder.mkdir(exist_ok=True)
    others = [path.parent.name for path in scratch.glob(f"{where}*/checkpoint-*") if path.parent != folder]
    if others and ranks.place == 0:
        print(
            shown(
                f"imprint: {scratch} has checkpoints of another number of ranks ({', '.join(sorted(set(others)))}), "
                f"which hold the weights in other parts; with {ranks.size} the fit does not go on from them"
            ),
            file=sys.stderr,
            flush=True,
        )
    return folder


if __name__ == "__main__":
    parents.end_with(int(sys.argv[3]))
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4]))
