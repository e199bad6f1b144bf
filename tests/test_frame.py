"""The log of a job: what it holds when the job ends, and when it is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

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
