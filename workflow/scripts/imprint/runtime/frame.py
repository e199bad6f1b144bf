"""What surrounds a job: threads, devices, the network, the log, and errors that a person can read."""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from imprint.runtime import fork_server, servers
from imprint.runtime.errors import ImprintError, shown

TIME_TO_LOG = 10.0  # seconds that an ending process waits until its log is written


def prepare(threads: int, network: bool = False, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the environment variables that libraries read when they are imported. Call it before torch is imported.

    Threads that wait by spinning cost a factor of ten when cores are shared, so the OpenMP wait policy is passive.
    Without `network` the hub clients are set to offline and the hub's token is removed, for this process and for those
    that it starts: a job that is not a fetch must never download anything.
    """
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "POLARS_MAX_THREADS",
        "RAYON_NUM_THREADS",
    ):
        environment[name] = str(threads)
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    environment["TOKENIZERS_PARALLELISM"] = "false"
    if not network:
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
            environment[name] = "1"
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):  # Slurm hands the environment to every job
            environment.pop(name, None)


def serve_forks() -> None:
    """Start the fork server of this run (`runtime/fork_server.py`), with a job's environment, without the servers'
    keys."""
    environment = dict(os.environ)
    prepare(1, environment=environment)
    servers.drop_keys(environment)
    fork_server.start(environment)


def device(choice: str, gpus: int) -> str:
    """The device of a job: "cpu" or "cuda", or "server" where the rule says so. `choice` is the config's
    `engine.device`, `gpus` the number of GPUs that the job was given. Raises ImprintError where a requested GPU is
    missing: a job never falls back to the CPU in silence."""
    if choice == servers.DEVICE:
        return choice
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    wanted = choice == "cuda" or (choice == "auto" and gpus > 0)
    if not wanted:
        return "cpu"
    if not torch.cuda.is_available():
        request = "engine.device: cuda" if choice == "cuda" else f"resources gpu={gpus}"
        raise ImprintError(
            f"{request} asks for a GPU, but torch {torch.__version__} finds none here; install a CUDA build and run "
            "where a GPU is, or take the request away (engine.device: cpu, or a profile without gpu)"
        )
    return "cuda"


def log_to(path: Path, heading: str) -> None:
    """From now on, copy what this process and its children print into a file as well. The copy is made by a process of
    its own, so the log is complete even when this process is killed.

    The file begins with `heading`, so it is never empty. Where a job's log is empty, Snakemake does not show the log
    that Slurm kept of the job, which says why Slurm ended it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{heading}\n", encoding="utf-8")
    screen = os.dup(2)
    copy = subprocess.Popen(["tee", "--append", str(path)], stdin=subprocess.PIPE, stdout=screen, stderr=screen)
    assert copy.stdin is not None
    for stream in (1, 2):
        os.dup2(copy.stdin.fileno(), stream)
    copy.stdin.close()

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream in (1, 2):
            os.dup2(screen, stream)
        with suppress(subprocess.TimeoutExpired):  # a child that outlives this process may still hold the pipe
            copy.wait(TIME_TO_LOG)

    atexit.register(end)


@contextmanager
def job(snakemake: Any, network: bool = False) -> Iterator[None]:
    """The frame of every script.

    It sets the environment. A job that runs a model goes on in a fork of the run's fork server, if there is one, and
    this process ends as the fork ends. The frame copies what is printed into the log, and holds the job's GPUs. It
    compares the job's code with the code of the plan before any of it is imported, and again at the end. It compares
    the rows of an eval with what the scores in the resource `scores` read. It writes beside the outputs what they were
    made from. A job whose rule has the resource `device` runs a model, so its record also says where it ran. An
    `ImprintError`, or an error of a full or read-only disk, ends the process with one message instead of a traceback.
    """
    prepare(snakemake.threads, network)
    device = snakemake.resources.get("device")
    if device != servers.DEVICE and not network:
        servers.drop_keys()
        if device:
            fork_server.hand_over()
    # Not before, since a process that hands over needs none of this.
    from imprint.runtime import job_record, local_gpus, needs, origin

    heading = f"{job_name(snakemake)} on {socket.gethostname()}, {datetime.now():%Y-%m-%d %H:%M:%S}"
    log_to(Path(snakemake.log[0]), heading)
    try:
        origin.begin(snakemake.params.get("code"))
        with ExitStack() as stack:
            if device:
                gpus = int(snakemake.resources.get("gpu", 0))
                if device == servers.DEVICE:
                    job_record.add({"device": device})
                elif device != "cpu" and "SLURM_JOB_ID" not in os.environ:
                    stack.enter_context(local_gpus.held(max(gpus, int(device == "cuda"))))
                record = job_record.path_for(Path(snakemake.output[0]))
                stack.enter_context(job_record.kept(record, gpus, snakemake.threads))
            if (scores := snakemake.resources.get("scores")) and (dataset := snakemake.input.get("dataset")):
                needs.check_made(scores.split(), Path(dataset))
            yield
            origin.check_code()
        origin.write(snakemake)
    except ImprintError as error:
        _end(snakemake, str(error))
    except Exception as error:
        if (why := unwritable(error, Path(snakemake.output[0]).parent)) is None:
            raise
        _end(snakemake, why)


def unwritable(error: Exception, folder: Path) -> str | None:
    """A message for a full disk, a reached quota or a read-only file system; None for every other error. Torch and
    safetensors raise errors without an error number, so the free space of `folder` counts too."""
    number, name = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
    full = number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    if not full and number not in (errno.EROFS, errno.EACCES):
        with suppress(OSError):
            full = shutil.disk_usage(folder).free < 2**20
        if not full:
            return None
    reason = "the disk is full" if full else os.strerror(number or errno.EROFS).lower()
    remedy = "free some space or make it writable, and run again: what was finished is kept"
    return f"{name or folder} cannot be written: {reason}; {remedy}"


def job_name(snakemake: Any) -> str:
    """What a person calls the job: its rule and its wildcards."""
    return " ".join([snakemake.rule, *(f"{key}={value}" for key, value in snakemake.wildcards.items())])


def _end(snakemake: Any, message: str) -> None:
    """Print the message with the name of the job, and end the process."""
    print(shown(f"\nimprint: {job_name(snakemake)}: {message}\n"), file=sys.stderr, flush=True)
    sys.exit(1)
