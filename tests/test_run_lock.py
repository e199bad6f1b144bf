"""Which command lines of snakemake take the results folder, and what a refused one is told to write."""

from __future__ import annotations

import pytest

from imprint import run_lock


@pytest.mark.parametrize("words", ["-n", "-np", "-nF", "--dry-run", "--dag=dot", "-l", "--unlock", "--list-rules"])
def test_looking_takes_no_lock(words: str) -> None:
    assert not run_lock.changes(["--cores", "2", *words.split()])


@pytest.mark.parametrize("words", ["", "-F", "-Rgenerate", "-pk", "-k", "--config note=1"])
def test_running_takes_it(words: str) -> None:
    assert run_lock.changes(["--cores", "2", *words.split()])


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("--cores all", "make resume"),
        ("--cores 2 --configfile config/config.yaml", "make resume"),
        ("--configfile config/real.yaml --config limit=32", "make resume CONFIG=config/real.yaml SET=limit=32"),
        ("--profile=slurm --config limit=8 mirror=m -k", "make resume PROFILE=slurm 'SET=limit=8 mirror=m'"),
    ],
)
def test_the_command_that_goes_on_names_what_was_run(words: str, command: str) -> None:
    assert run_lock.resume(words.split()) == command
