"""Which command lines of snakemake take the results folder, and what a refused one is told to write."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from conftest import ROOT
from imprint.dag import run_lock


@pytest.mark.parametrize("words", ["-n", "-np", "-nF", "--dry-run", "--dag=dot", "-l", "--unlock", "--list-rules"])
def test_looking_takes_no_lock(words: str) -> None:
    assert not run_lock.changes(["--cores", "2", *words.split()])


@pytest.mark.parametrize(
    ("words", "dry"),
    [("-n", True), ("-np", True), ("--dry-run", True), ("--dryrun", True), ("--dag", False), ("-p", False)],
)
def test_a_dry_run_is_told_from_other_looks(words: str, dry: bool) -> None:
    assert run_lock.dry(["--cores", "2", words]) == dry


@pytest.mark.parametrize("words", ["", "-F", "-Rgenerate", "-pk", "-k", "--config note=1"])
def test_running_takes_it(words: str) -> None:
    assert run_lock.changes(["--cores", "2", *words.split()])


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("--cores all", "make resume"),
        ("--cores 2 --configfile config/config.yaml", "make resume"),
        ("--configfile config/real.yaml --config limit=32", "make resume CONFIG=config/real.yaml SET=limit=32"),
        (["--config", "seeds=[0, 1]", "limit=2"], """make resume 'SET='"'"'seeds=[0, 1]'"'"' limit=2'"""),
        ("--profile=slurm --config limit=8 mirror=m -k", "make resume PROFILE=slurm 'SET=limit=8 mirror=m'"),
    ],
)
def test_the_command_that_goes_on_names_what_was_run(words: str | list[str], command: str) -> None:
    assert run_lock.resume(words.split() if isinstance(words, str) else words) == command


def test_make_hands_over_what_the_command_says() -> None:
    """Lists with spaces through make's and the shell's quoting, and a question that is full of them."""

    def shown(*words: str) -> str:
        return subprocess.run(
            ["make", "--silent", "-o", ".venv/made", *words], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    command = shlex.split(run_lock.resume(["--config", "seeds=[0, 1]", "limit=2"]))
    last = shlex.split(shown("-n", *command[1:]).splitlines()[-1])
    assert last[last.index("--config") + 1 :][:2] == ["seeds=[0, 1]", "limit=2"]
    ending, again = shown("-n", *command[1:]).splitlines()
    assert "imprint.resume --configfile config/config.yaml --config" in ending
    assert "--unlock" not in again, "it would drop the locks of other runs too"
    question = """Why is "x" 'y'? `touch /tmp/p` $(touch /tmp/p) $HOME; \\n"""
    asked = shown("ask", "BIN=tests/echo", "ARM=base", f"Q={question}")
    assert asked == f"-m\nimprint.ask\n--config\nconfig/config.yaml\n--\nbase\n{question}\n"
