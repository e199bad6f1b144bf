"""What surrounds a job: threads, devices, the network, and errors that a person can read."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from imprint import job_record, local_gpus, origin
from imprint.errors import ImprintError, shown


def prepare(threads: int, network: bool = False) -> None:
    """Set what libraries read when they are imported; call it before torch is.

    Threads that wait by spinning cost a factor of ten when cores are shared, so the OpenMP wait policy is passive.
    Without `network` the model hubs are offline, and their token is gone, for what the job starts as well: a job that
    is not a fetch must never download anything.
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
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):  # Slurm hands the environment to every job
            os.environ.pop(name, None)


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
    """The frame of every script: environment and GPUs first, and an `ImprintError` as one message instead of a
    traceback. The code must be what the job was planned with, before any of it is imported and again at the end. What
    the job was made from is written beside its outputs; where it ran, if it runs a model (its rule has the resource
    `device`)."""
    prepare(snakemake.threads, network)
    try:
        origin.begin(snakemake.params.get("code"))
        with ExitStack() as stack:
            if device := snakemake.resources.get("device"):
                gpus = int(snakemake.resources.get("gpu", 0))
                if device != "cpu" and "SLURM_JOB_ID" not in os.environ:
                    stack.enter_context(local_gpus.held(max(gpus, int(device == "cuda"))))
                record = job_record.path_for(Path(snakemake.output[0]))
                stack.enter_context(job_record.kept(record, gpus, snakemake.threads))
            yield
            origin.check_code()
        origin.write(snakemake)
    except ImprintError as error:
        _end(snakemake, str(error))
    except Exception as error:
        if (why := _unwritable(error, Path(snakemake.output[0]).parent)) is None:
            raise
        _end(snakemake, f"{why}; free some space or make it writable, and run again: what was finished is kept")


def _unwritable(error: Exception, folder: Path) -> str | None:
    """That a disk is full, a quota reached or a file system read-only, in words; None for every other error. Torch and
    safetensors raise errors of their own, without a number, so the disk is looked at too."""
    number = getattr(error, "errno", None)
    full = number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    if not full and number not in (errno.EROFS, errno.EACCES):
        with suppress(OSError):
            full = shutil.disk_usage(folder).free < 2**20
        if not full:
            return None
    what = "the disk is full" if full else os.strerror(number or errno.EROFS).lower()
    return f"{getattr(error, 'filename', None) or folder} cannot be written: {what}"


def _end(snakemake: Any, message: str) -> None:
    """Print what happened in which job, and end the process."""
    what = " ".join([snakemake.rule, *(f"{key}={value}" for key, value in snakemake.wildcards.items())])
    print(shown(f"\nimprint: {what}: {message}\n"), file=sys.stderr, flush=True)
    sys.exit(1)
