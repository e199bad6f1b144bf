"""What we take for granted of Snakemake's insides, which no release promises: an assumption a test. They are told here
where a new release breaks one, and not by a run that does something else."""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.cli import get_argument_parser
from snakemake.persistence.file import FilePersistence
from snakemake.resources import Resource

import workflow
from conftest import ROOT
from imprint.dag import adoption, placement, run_lock, start
from imprint.runtime import origin

# Command lines (run_lock, start)


def options() -> Iterator[argparse.Action]:
    yield from get_argument_parser()._actions


def test_an_option_that_runs_no_job_is_known_by_all_its_names() -> None:
    for action in options():
        known = {name: not run_lock.changes([name]) for name in action.option_strings}
        assert len(set(known.values())) <= 1, known


RUN_NOTHING = {
    "--archive", "--cleanup-metadata", "--cleanup-shadow", "--containerize", "--d3dag", "--dag", "--detailed-summary",
    "--dry-run", "--export-cwl", "--filegraph", "--generate-unit-tests", "--lint", "--list-changes",
    "--list-conda-envs", "--list-input-changes", "--list-params-changes", "--list-rules", "--list-target-rules",
    "--list-untracked", "--print-compilation", "--report", "--rulegraph", "--summary", "--touch", "--unlock",
}  # fmt: skip


def test_the_options_that_run_no_job_are_those_of_this_release() -> None:
    known = {action.option_strings[0] for action in options() if action.option_strings}
    assert {name for name in known if not run_lock.changes([name])} == RUN_NOTHING
    assert known >= RUN_NOTHING


@pytest.mark.parametrize("words", ["-n", "-np", "-nF", "-pn", "-kn", "-nq", "--dry-run", "--dryrun"])
def test_letters_are_put_together_as_we_read_them(words: str) -> None:
    told = get_argument_parser().parse_args(["--cores", "1", *words.split()])
    assert told.dryrun and not run_lock.changes(words.split())


def test_a_config_file_has_no_other_option() -> None:
    """`start.check_files` looks for two names; argparse would take a beginning of one for the option."""
    (action,) = [action for action in options() if "--configfile" in action.option_strings]
    assert action.option_strings == ["--configfile", "--configfiles"] and action.nargs == "+"
    for beginning in ("--configf", "--configfil"):
        with pytest.raises(SystemExit):
            get_argument_parser().parse_args([beginning, "config.yaml"])


@pytest.mark.parametrize(
    "words",
    [
        "--configfile bad.yaml",
        "--configfile=bad.yaml",
        "--configfiles good.yaml bad.yaml -n",
        "--cores 1 --configfile bad.yaml results/report.html",
        "-n --configfiles=bad.yaml",
    ],
)
def test_a_broken_config_file_is_found_wherever_it_stands(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text("a: 1\n")
    start.check_files(words.replace("bad", "good").split())
    Path("bad.yaml").write_text("a: [\n")
    with pytest.raises(SystemExit, match=r"^imprint: bad\.yaml, line "):
        start.check_files(words.split())


# Records and locks (adoption, run_lock)

SNAKEFILE = """
rule all:
    input:
        "results/tables/one.txt",


rule make:
    input:
        "in.txt",
    output:
        "results/tables/{name}.txt",
    params:
        code=lambda wildcards: '{"a.py": "0"}',
        spec='{"size": 1}',
    shell:
        "tail -n +1 .snakemake/locks/* > {output}"


print("main process:", workflow.is_main_process)
print("config files:", workflow.config_settings.configfiles, dict(workflow.config_settings.config))
print("gpus:", workflow.resource_settings.resources["gpu"].value)
"""


WORDS = ["--configfile", "more.yaml", "--config", "bb=2", "--resources", "gpu=3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A tiny workflow that has run, and what it printed."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "in.txt").write_text("content")
    (folder / "more.yaml").write_text("a: 1\n")
    done = subprocess.run(
        workflow.command(*WORDS), cwd=folder, env=workflow.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def test_a_record_holds_what_adoption_writes(made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = made
    monkeypatch.chdir(folder)
    name = "results/tables/one.txt"
    record = adoption._record(FilePersistence(nolock=True), name)
    assert record.rule == "make" and record.incomplete is False
    assert record.params == sorted(map(repr, ('{"a.py": "0"}', '{"size": 1}')))
    assert record.input == ["in.txt"]
    assert record.input_checksums == {"in.txt": f"sha256:{hashlib.sha256(b'content').hexdigest()}"}
    assert record.endtime == Path(name).stat().st_mtime


def test_a_record_that_adoption_writes_is_one_for_snakemake(
    made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made
    monkeypatch.chdir(folder)
    name = "results/tables/one.txt"
    snakemake = SimpleNamespace(
        rule="make", params={"code": '{"a.py": "0"}', "spec": '{"size": 1}'}, input=["in.txt"], output=[name]
    )
    origin.write(snakemake)
    record = FilePersistence(nolock=True)._read_record(name)
    FilePersistence(nolock=True)._delete_record(name)
    rule = SimpleNamespace(is_producer=lambda path: True, get_wildcards=lambda path: {}, params=snakemake.params)
    adoption.adopt(SimpleNamespace(rules=[rule]), [name], "results")
    again = FilePersistence(nolock=True)._read_record(name)
    for part in ("rule", "params", "input", "input_checksums", "endtime", "incomplete", "record_format_version"):
        assert getattr(again, part) == getattr(record, part), part
    assert "Nothing to be done" in workflow.run(folder, "-n", *WORDS, "--rerun-triggers", "params", "input", "mtime")


def test_a_run_locks_its_outputs_by_their_paths(made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = made
    held = (folder / "results/tables/one.txt").read_text()
    names = re.findall(r"==> (\S+) <==", held)
    assert names and all(re.fullmatch(r"\.snakemake/locks/\d+\.(in|out)put\.lock", name) for name in names)
    assert Path(".snakemake/locks") == run_lock.LOCKS
    assert "\nresults/tables/one.txt\n" in held
    monkeypatch.chdir(folder)
    assert not list(run_lock.LOCKS.glob("*.lock")), "and gives them back"


def test_what_the_snakefile_reads_of_the_workflow_is_there(made: tuple[Path, str]) -> None:
    _, said = made
    assert "main process: True" in said
    assert re.search(r"config files: \[.*more\.yaml.*\] \{'bb': 2\}", said), said
    assert "gpus: 3" in said


# Resources (placement)


def test_a_resource_is_evaluated_as_a_profile_s() -> None:
    jobs = SimpleNamespace(arm=lambda wildcards: wildcards.arm)
    own = {"a1": placement._resource("mem_mb", "700 * attempt"), "b1": placement._resource("mem_mb", 9)}
    value = placement._by_job(own, Resource("mem_mb", 5), jobs)  # type: ignore[arg-type]
    told = [
        value(SimpleNamespace(arm=arm), input=[], attempt=2, rulename="generate", async_run=False, threads=1)
        for arm in ("a1", "b1", "c1")
    ]
    assert told == [1400, 9, 5]
    assert placement._resource("slurm_partition", "large * 2").value == "large * 2", "a name is no expression"
    cores = placement._by_job({"a1": placement._resource("_cores", "2 * attempt")}, None, jobs)  # type: ignore[arg-type]
    assert cores(SimpleNamespace(arm="a1"), input=[], attempt=3, rulename="x", async_run=False) == 6


def test_the_release_is_the_one_that_these_tests_speak_of() -> None:
    pinned = re.search(r"^snakemake==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert pinned and f'"snakemake=={pinned[1]}"' in (ROOT / "pyproject.toml").read_text()
    out = subprocess.run([sys.executable, "-m", "snakemake", "--version"], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == pinned[1]
