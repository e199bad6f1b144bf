"""The fork server: a job's script runs in a fork as it would run in its own process, and neither outlives the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imprint.runtime import fork_server, processes

HANDS_OVER = "from imprint.runtime import fork_server; fork_server.hand_over()\n"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fork server whose driver is this process. Gives its folder."""
    monkeypatch.setenv(fork_server.ADDRESS, "")
    monkeypatch.setattr(fork_server, "_kept", [])
    fork_server.start({**os.environ, "OF_SERVER": "1"}, ["sqlite3"])
    yield Path(os.environ[fork_server.ADDRESS].split(" ")[0]).parent
    for end in fork_server._kept:
        os.close(end)


def job(folder: Path, then: str) -> subprocess.Popen[str]:
    """A job's process: it hands over the script, which says where it runs, and goes on with `then`."""
    script = folder / "job.py"
    script.write_text(f"import os, signal, subprocess, sys, time\nfrom pathlib import Path\n{HANDS_OVER}{then}\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OF_JOB": "1"}
    return subprocess.Popen([sys.executable, str(script)], cwd=folder, env=environment, stdout=-1, stderr=-1, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def wait(until: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_script_runs_in_a_fork_with_the_streams_the_folder_and_the_environment_of_its_job(
    server: Path, tmp_path: Path
) -> None:
    process = job(
        tmp_path,
        "print('sqlite3' in sys.modules, Path.cwd(), sys.argv, os.environ.get('OF_JOB'), os.environ.get('OF_SERVER'))\n"
        "print(os.getpid(), file=sys.stderr)",
    )
    status, output, errors = ended(process)
    assert (status, output) == (0, f"True {tmp_path} ['{tmp_path / 'job.py'}'] 1 None\n")
    assert int(errors) != process.pid


@pytest.mark.parametrize(
    ("end", "status", "errors"),
    [
        ("", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no rows')", 1, "no rows\n"),
        ("subprocess.run(['sh', '-c', 'exit 4'], check=True)", 1, "non-zero exit status 4."),
    ],
)
def test_the_job_ends_as_the_fork_ends(server: Path, tmp_path: Path, end: str, status: int, errors: str) -> None:
    code, _, printed = ended(job(tmp_path, end))
    assert code == status
    assert printed.strip().endswith(errors.strip())


def test_the_job_ends_after_what_was_left_for_the_end(server: Path, tmp_path: Path) -> None:
    late = "import atexit; atexit.register(lambda: (time.sleep(0.5), Path('late').touch()))"
    assert ended(job(tmp_path, late))[0] == 0
    assert (tmp_path / "late").exists()


def test_forks_run_side_by_side(server: Path, tmp_path: Path) -> None:
    jobs = []
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        meets = f"Path('../met_{name}').touch()\nwhile not Path('../met_{other}').exists(): time.sleep(0.05)"
        jobs.append(job(tmp_path / name, meets))
    assert [ended(each)[0] for each in jobs] == [0, 0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_fork_of_a_killed_job_ends_in_order(server: Path, tmp_path: Path, number: int) -> None:
    process = job(
        tmp_path,
        "try:\n    Path('pid').write_text(f'{os.getpid()}')\n    time.sleep(60)\nfinally:\n    Path('record').touch()",
    )
    wait(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    fork = int((tmp_path / "pid").read_text())
    process.send_signal(number)
    wait((tmp_path / "record").exists)
    wait(lambda: processes.started(fork) is None)
    assert ended(process)[0] == -number


def test_a_fork_that_does_not_end_is_killed(server: Path, tmp_path: Path) -> None:
    process = job(
        tmp_path,
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nPath('pid').write_text(f'{os.getpid()}')\ntime.sleep(60)",
    )
    wait(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    process.kill()
    wait(lambda: processes.started(int((tmp_path / "pid").read_text())) is None)
    ended(process)


def test_a_job_whose_fork_is_killed_is_killed_too(server: Path, tmp_path: Path) -> None:
    assert ended(job(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)"))[0] == -signal.SIGKILL


def test_a_job_runs_itself_where_the_server_has_ended_or_cannot_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fork_server.ADDRESS, f"{tmp_path / 'none'} {os.getpid()}")
    process = job(tmp_path, "print(os.getpid())")
    assert ended(process)[:2] == (0, f"{process.pid}\n")
    fork_server.start(dict(os.environ), ["no_such_library"])
    process = job(tmp_path, "print(os.getpid())")
    assert ended(process)[:2] == (0, f"{process.pid}\n")


def test_a_job_that_the_driver_has_not_started_runs_itself(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Slurm: the environment of the driver comes to the job, the driver's processes do not."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        monkeypatch.setenv(fork_server.ADDRESS, f"{server / 'socket'} {stranger.pid}")
        process = job(tmp_path, "print(os.getpid())")
        assert ended(process)[:2] == (0, f"{process.pid}\n")
        stranger.kill()


def test_the_server_ends_with_its_driver_and_leaves_no_folder(tmp_path: Path) -> None:
    program = (
        "import os, time; from imprint.runtime import fork_server\n"
        "fork_server.start(dict(os.environ), [])\nprint(os.environ[fork_server.ADDRESS], flush=True)\ntime.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=-1, text=True) as driver:
        assert driver.stdout is not None
        folder = Path(driver.stdout.readline().split(" ")[0]).parent
        assert folder.stat().st_mode & 0o077 == 0, "another user could hand over a script"
        driver.kill()
        wait(lambda: not folder.exists())
