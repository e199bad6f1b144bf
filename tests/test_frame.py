"""The log of a job: what it holds when the job ends, and when it is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

JOB = """
import os, signal, sys
from pathlib import Path
from imprint.runtime import frame
frame.log_to(Path(sys.argv[1]), "train_sft arm=instruct")
"""


def run(log: Path, then: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", JOB + then, str(log)], capture_output=True, text=True, env=environment)


def test_the_log_holds_a_heading_and_what_was_printed(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "job.log"
    ended = run(log, "print('loss 2.1'); sys.exit('imprint: no rows')")
    assert ended.returncode == 1
    assert log.read_text() == "train_sft arm=instruct\nloss 2.1\nimprint: no rows\n"
    assert ended.stderr == "loss 2.1\nimprint: no rows\n"


def test_the_log_of_a_killed_job_keeps_what_was_printed(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    ended = run(log, "print('loss 2.1', flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    assert ended.returncode == -signal.SIGKILL
    assert log.read_text() == "train_sft arm=instruct\nloss 2.1\n"


def test_the_log_of_a_job_that_printed_nothing_is_not_empty(tmp_path: Path) -> None:
    """Snakemake stops at an empty log and does not go on to Slurm's, where the reason of the kill stands."""
    log = tmp_path / "job.log"
    run(log, "os.kill(os.getpid(), signal.SIGKILL)")
    assert log.read_text() == "train_sft arm=instruct\n"


KEYS = """
import subprocess, sys
from pathlib import Path
from types import SimpleNamespace
from snakemake.iocontainers import InputFiles
from imprint.runtime import frame, servers
from imprint.runtime.servers import Access

folder, device, network = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"
servers.tell({"far-0": Access(key_env="FAR_KEY"), "near-0": Access()})
(folder / "out.json").write_text("{}")
snakemake = SimpleNamespace(
    rule="r", wildcards={}, threads=1, log=[folder / "job.log"], params={}, input=InputFiles(),
    output=[folder / "out.json"], resources={"device": device} if device else {},
)
with frame.job(snakemake, network):
    subprocess.run(["sh", "-c", "echo got $FAR_KEY"])
"""


@pytest.mark.parametrize(
    ("device", "network", "kept"),
    [("server", False, True), ("", True, True), ("cpu", False, False), ("", False, False)],
)
def test_only_a_job_that_asks_a_server_has_its_key(tmp_path: Path, device: str, network: bool, kept: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "FAR_KEY": "secret"}
    command = [sys.executable, "-c", KEYS, str(tmp_path), device, str(network)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "job.log").read_text().endswith("got secret\n" if kept else "got\n")
    if device:
        (attempt,) = json.loads((tmp_path / "out.job.json").read_text())["attempts"]
        assert attempt["device"] == device
