"""What code in the jail can reach of the machine: nothing that outlives it, and no more memory than it may have."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import security
from imprint.scoring import isolation, jail

CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def refused(*arguments):
    return libc.syscall(*arguments) == -1 and ctypes.get_errno() in (1, 38)
"""
THREADS = """
import threading
ended = []
threads = [threading.Thread(target=ended.append, args=(i,)) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(ended))
"""
HELD = """
held = []
try:
    while True:
        held.append(bytearray(1 << 24))
except MemoryError:
    print(len(held) < 65)
"""
FILES = """
number = 0
try:
    while True:
        open(f"/tmp/{number}", "w").close()
        number += 1
except OSError as error:
    print(error.errno, number < 4096)
"""
STARTS = (
    "os.fork()",
    "os.posix_spawn('/bin/true', ['true'], {})",
    "subprocess.run(['/bin/true'])",
    "multiprocessing.Process().start()",
)
COLUMN = jail.MACHINES[os.uname().machine][1]


def shmem() -> int:
    """Bytes of shared memory of the whole machine."""
    line = next(one for one in Path("/proc/meminfo").read_text().splitlines() if one.startswith("Shmem:"))
    return int(line.split()[1]) * 1024


def test_every_refused_call_is_refused() -> None:
    numbers = {name: pair[COLUMN] for name, pair in (jail.REFUSED | jail.ALONE).items() if pair[COLUMN] is not None}
    numbers |= {"io_uring_setup": 425, "pidfd_open": 434, "clone3": 435, "memfd_secret": 447, "mount_setattr": 442}
    zeros = ", 0" * 6
    program = CALL + f"print([name for name, number in {numbers!r}.items() if not refused(number{zeros})])"
    assert isolation.run(program).text == "[]\n"


@pytest.mark.parametrize("family", [1, 2, 10, 16, 17, 38, 40])  # unix, inet, inet6, netlink, packet, alg, vsock
def test_no_socket_of_any_family_can_be_made(family: int) -> None:
    program = CALL + f"print(refused({(41, 198)[COLUMN]}, {family}, 1, 0))\nimport socket\nsocket.socketpair()"
    outcome = isolation.run(program)
    assert (outcome.text, outcome.end) == ("True\n", "ended")
    security.seen(
        "a socket of a family that no namespace cuts off, such as AF_VSOCK",
        "no socket can be made but a pair within the process",
    )


def test_keyrings_are_out_of_reach() -> None:
    keyctl, add_key = (250, 219)[COLUMN], (248, 217)[COLUMN]
    program = CALL + f"print(refused({keyctl}, 1, 0), refused({add_key}, b'user', b'k', b'v', 1, -3))"
    assert isolation.run(program).text == "True True\n"
    security.seen("the user's kernel keyrings", "add_key, request_key and keyctl are refused")


def test_shared_memory_that_belongs_to_no_process() -> None:
    before = shmem()
    program = (
        CALL
        + f"held = [libc.syscall({(29, 194)[COLUMN]}, i + 1, 256 << 20, 0o1600) for i in range(4)]\n"
        + f"files = [libc.syscall({(319, 279)[COLUMN]}, b'm', 0) for i in range(4)]\nprint(held, files)"
    )
    assert isolation.run(program).text == "[-1, -1, -1, -1] [-1, -1, -1, -1]\n"
    assert shmem() - before < 64 << 20
    security.seen("SysV shared memory and memory files", "shmget, memfd_create and the like are refused")


def test_memory_is_limited_for_the_whole_jail() -> None:
    for start in STARTS:
        program = f"import os, subprocess, multiprocessing\ntry:\n    {start}\nexcept OSError as e:\n    print(e.errno)"
        assert isolation.run(program).text == "1\n", start
    assert isolation.run(THREADS).text == "[0, 1, 2, 3]\n", "threads share the limits of their process"
    assert isolation.run(HELD).text == "True\n"
    security.seen("many processes that each take the memory of one", "there is no second one: its limit is the jail's")


def test_files_and_folders_are_counted() -> None:
    assert isolation.run(FILES).text == "28 True\n"
    security.seen("hundreds of thousands of empty files in the scratch folder", "at most 4,096: then it is full")


def test_new_namespaces_are_refused() -> None:
    unshare, clone = (272, 97)[COLUMN], jail.CLONE[COLUMN]
    program = CALL + f"print(refused({unshare}, 0x10020000), refused({clone}, 0x10000011, 0, 0, 0, 0))"
    assert isolation.run(program).text == "True True\n"
    security.seen(
        "a new user namespace inside the jail, bpf, io_uring, userfaultfd",
        "refused, as is every newer call that Python does not need",
    )


SUBMOUNT = """
import ctypes, os, sys
sys.path.insert(0, {scripts!r})
from imprint.scoring import isolation
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0, "mount namespace"
assert libc.mount(b"none", b"/", None, 1 << 14 | 1 << 18, None) == 0
assert libc.mount(b"below", {place!r}.encode(), b"tmpfs", 0, None) == 0
print(isolation.run("open({place!r} + '/written', 'w')").text.splitlines()[-1])
print(os.listdir({place!r}))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system to try it with")
def test_a_file_system_mounted_below_is_read_only() -> None:
    scripts = str(Path(isolation.__file__).parents[2])
    program = SUBMOUNT.format(scripts=scripts, place="/usr/local/share")
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    last, listed = out.stdout.splitlines()
    assert "Read-only file system" in last
    assert listed == "[]"
    security.seen(
        "a file system that is mounted below /usr or Python's prefix", "read-only, as all that the jail shows"
    )


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare here")
def test_the_root_of_a_container_of_one_user_has_a_jail() -> None:
    program = (
        "from imprint.scoring import isolation\n"
        "print(isolation.run('import os; print(os.getuid()); os.mkdir(\"/dev/x\")'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(isolation.__file__).parents[2])}
    out = subprocess.run(
        ["unshare", "-r", sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert "text='0\\n" in out.stdout and "Permission denied" in out.stdout and "end='failed'" in out.stdout


def test_the_filter_is_for_this_machine() -> None:
    """The numbers of the calls are those of the C library's own headers, where it has them."""
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if os.uname().machine != "x86_64" or not header.is_file():
        pytest.skip("no headers of x86_64 here")
    known = dict(line.split()[1:3] for line in header.read_text().splitlines() if line.startswith("#define __NR_"))
    for name, (number, _) in (jail.REFUSED | jail.ALONE).items():
        assert known.get(f"__NR_{name}") == str(number), name
    for name, number in jail.NEWER_ALLOWED.items():
        assert known.get(f"__NR_{name}") == str(number), name
    assert ctypes.sizeof(ctypes.c_void_p) == 8


def test_a_worker_is_gone_with_its_scorer() -> None:
    program = (
        "import sys, time\nfrom imprint.scoring import bounded\n"
        "bounded.call('math:sqrt', [4], warm=('math',), jailed=True)\n"
        "print('up', flush=True)\ntime.sleep(60)"
    )
    scripts = str(Path(isolation.__file__).parents[2])
    scorer = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": scripts}, stdout=subprocess.PIPE
    )
    assert scorer.stdout is not None and scorer.stdout.readline() == b"up\n"
    children = [int(p.name) for p in Path("/proc").glob("[0-9]*") if _parent(p) == scorer.pid]
    assert children
    scorer.kill()
    scorer.wait()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
