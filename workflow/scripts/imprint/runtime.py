"""What surrounds a job: threads, devices, the network, and errors that a person can read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from imprint.errors import ImprintError


def prepare(threads: int, network: bool = False) -> None:
    """Set what libraries read when they are imported; call it before torch is.

    Threads that wait by spinning cost a factor of ten when cores are shared, so the OpenMP wait policy is passive.
    Without `network` the model hubs are offline: a job that is not a fetch must never download anything.
    """
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "POLARS_MAX_THREADS",
        "RAYON_NUM_THREADS",
    ):
        os.environ[name] = str(threads)
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if not network:
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
            os.environ[name] = "1"


def device(choice: str, gpus: int) -> str:
    """The device of a job: `choice` is the config's, `gpus` what the job was given. A GPU that was asked for and is
    not there is an error, never a silent run on the CPU."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    wanted = choice == "cuda" or (choice == "auto" and gpus > 0)
    if not wanted:
        return "cpu"
    if not torch.cuda.is_available():
        asked = "engine.device: cuda" if choice == "cuda" else f"resources gpu={gpus}"
        raise ImprintError(
            f"{asked} asks for a GPU, but torch {torch.__version__} finds none here; install a CUDA build and run "
            "where a GPU is, or take the request away (engine.device: cpu, or a profile without gpu)"
        )
    return "cuda"


@contextmanager
def job(snakemake: Any, network: bool = False) -> Iterator[None]:
    """The frame of every script: environment first, and an `ImprintError` as one message instead of a traceback."""
    prepare(snakemake.threads, network)
    try:
        yield
    except ImprintError as error:
        what = " ".join([snakemake.rule, *(f"{key}={value}" for key, value in snakemake.wildcards.items())])
        print(f"\nimprint: {what}: {error}\n", file=sys.stderr, flush=True)
        sys.exit(1)
