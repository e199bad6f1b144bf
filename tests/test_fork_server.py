"""The fork server: a job's script runs in a fork as it would run in its own process, and neither outlives the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from imprint.runtime import fork_server, processes

HANDS_OVER = "from imprint.runtime import fork_server; fork_server.hand_over()\n"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fork server whose driver is this process. Gives its folder."""
    monkeypatch.setenv(fork_server.ADDRESS, "")
    ends: list[Callable[[], None]] = []
    monkeypatch.setattr(fork_server.atexit, "register", lambda *call: ends.append(partial(*call)))
    fork_server.start({**os.environ, "OF_SERVER": "1"}, ["sqlite3"])
    folder = Path(os.environ[fork_server.ADDRESS].split(" ")[0]).parent
    yield folder
    for end in ends:
        end()
    assert not folder.exists()


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
        ("sys.exit(-1)", 255, ""),
        ("os.abort()", -signal.SIGABRT, ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
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


def test_an_interrupted_job_ends_after_its_fork(server: Path, tmp_path: Path) -> None:
    """So that nothing is cleared away while the fork still writes."""
    process = job(
        tmp_path,
        "try:\n    Path('begun').touch()\n    time.sleep(60)\nfinally:\n    time.sleep(1)\n    Path('record').touch()",
    )
    wait((tmp_path / "begun").exists)
    process.send_signal(signal.SIGINT)
    status, _, errors = ended(process)
    assert (tmp_path / "record").exists()
    assert status == -signal.SIGINT and errors.count("KeyboardInterrupt") == 1


def test_a_process_that_a_fork_leaves_behind_holds_up_nobody(server: Path, tmp_path: Path) -> None:
    left = "if os.fork() == 0:\n    for stream in (0, 1, 2): os.close(stream)\n    time.sleep(20)\n    os._exit(0)"
    process = job(tmp_path, left)
    process.wait(10)
    assert process.returncode == 0


def test_the_forks_of_a_killed_server_are_killed(server: Path, tmp_path: Path) -> None:
    process = job(tmp_path, "Path('parent').write_text(f'{os.getppid()}')\ntime.sleep(60)")
    wait(lambda: (tmp_path / "parent").exists() and (tmp_path / "parent").read_text())
    os.kill(int((tmp_path / "parent").read_text()), signal.SIGTERM)
    assert ended(process)[0] == -signal.SIGKILL


def test_a_job_runs_itself_where_the_server_has_ended_or_cannot_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(fork_server.ADDRESS, f"{tmp_path / 'none'} {os.getpid()}")
    process = job(tmp_path, "print(os.getpid())")
    assert ended(process)[:2] == (0, f"{process.pid}\n")
    fork_server.start(dict(os.environ), ["no_such_library"])
    process = job(tmp_path, "print(os.getpid())")
    assert ended(process)[:2] == (0, f"{process.pid}\n")
    assert "jobs import torch themselves: ModuleNotFoundError" in capfd.readouterr().err
    wait(lambda: not Path(os.environ[fork_server.ADDRESS].split(" ")[0]).exists())


def test_a_run_without_a_place_for_the_socket_has_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(fork_server.ADDRESS, "")
    (tmp_path / ("long" * 30)).mkdir()
    monkeypatch.setattr(fork_server.tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    fork_server.start(dict(os.environ))
    assert os.environ[fork_server.ADDRESS] == ""
    assert "AF_UNIX path too long; each job imports torch itself" in capsys.readouterr().err
    assert not list((tmp_path / ("long" * 30)).iterdir())


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


def test_a_run_that_ends_in_order_leaves_no_line_in_its_lock(tmp_path: Path) -> None:
    """The line stays where a process of the run lives, and the server is one."""
    program = (
        "import os; from imprint.dag import run_lock; from imprint.runtime import frame, processes\n"
        "os.environ[processes.RUN] = run_lock.ID\nrun_lock.hold('results')\nframe.serve_forks()"
    )
    (tmp_path / "results").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "results/.run.lock").read_text() == ""


def test_a_fork_imports_what_the_runs_pythonpath_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "of_the_user.py").write_text("NAME = 'mine'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    request.getfixturevalue("server")
    assert ended(job(tmp_path, "import of_the_user; print(of_the_user.NAME)"))[:2] == (0, "mine\n")


def test_a_run_that_ignores_interrupts_has_forks_that_end_in_order(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A shell lets what it starts in the background ignore them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        request.getfixturevalue("server")
    finally:
        signal.signal(signal.SIGINT, before)
    process = job(tmp_path, "try:\n    Path('begun').touch()\n    time.sleep(60)\nfinally:\n    Path('record').touch()")
    wait((tmp_path / "begun").exists)
    process.kill()
    wait((tmp_path / "record").exists)
    ended(process)
