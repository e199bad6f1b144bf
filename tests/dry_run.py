"""Runs of snakemake that start no job, by forks of one process that has imported it. The import is most of what such a
run takes."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = (str(ROOT / "tests"), str(ROOT / "workflow"))
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["snakemake.cli", "scipy.stats"])


def snakemake(project: Path, arguments: list[str], environment: dict[str, str]) -> tuple[int | None, str]:
    """The exit status of `snakemake ARGUMENTS` in a project, and what it has printed. The status is negative if the run
    was ended after ten minutes."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as printed:
        run = FORKS.Process(target=_snakemake, args=(str(project), arguments, environment, printed.name))
        run.start()
        run.join(600)
        run.kill()  # if it hangs
        run.join()
        return run.exitcode, printed.read()


def _snakemake(project: str, arguments: list[str], environment: dict[str, str], printed: str) -> None:
    descriptor = os.open(printed, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.chdir(project)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["snakemake", *arguments]
    sys.path[:] = [path for path in sys.path if not path.startswith(OURS)]  # the project has its own package

    from snakemake.cli import main

    main(arguments)
