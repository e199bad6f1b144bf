"""Code that a model wrote, and that does all it can: it fails, reaches nothing, and the next response is judged."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import security
from imprint.scores import code
from imprint.scoring import bounded, isolation
from test_code import GOOD, verdicts

FORGED = {
    "equal to everything": "class A(list):\n    def __eq__(self, other):\n        return True\n"
    "def double(xs):\n    return A()\n",
    "what the caller knows": "def double(xs):\n    import sys\n    frame = sys._getframe(1)\n    while frame:\n"
    "        for value in list(frame.f_locals.values()):\n            if isinstance(value, (list, dict)):\n"
    "                return value\n        frame = frame.f_back\n",
    "a verdict of its own": "def double(xs):\n    import sys\n    said = sys._getframe(1).f_locals['said']\n"
    "    print('\\n' + said + '{\"base\": true, \"extra\": true}', flush=True)\n    import os\n    os._exit(0)\n",
    "the packing replaced": 'import json\njson.dumps = lambda *_, **__: \'{"base": [[], []], "extra": [[], []]}\'\n'
    "def double(xs):\n    return xs\n",
}


def test_forging_does_not_pass() -> None:
    for name, attack in FORGED.items():
        assert verdicts(f"```python\n{attack}```") == {"passed_base": 0.0, "passed": 0.0}, name
    security.seen(
        "code that forges its verdict: objects equal to everything, the caller's variables, the packing replaced",
        "worth 0: results are plain data, compared where the code does not run",
    )


# Each would return the right answer if it had its way with the system first.
ATTACKS = {
    "fork bomb": "import os\nwhile True:\n    os.fork()\n",
    "endless loop": "while True:\n    pass\n",
    "10 GB of memory": "x = bytearray(10 << 30)\n",
    "memory, again and again": "xs = []\nwhile True:\n    xs.append(bytearray(1 << 24))\n",
    "/etc/passwd": "open('/etc/passwd').read()\n",
    "secrets of the environment": "import os\nassert 'IMPRINT_SECRET' in os.environ\n",
    "secrets of other processes": "import glob\nfor p in glob.glob('/proc/*/environ'):\n"
    "    open(p).read()\nassert glob.glob('/proc/*/environ')\n",
    "writing home": f"open({str(Path.home() / 'imprint_was_here')!r}, 'w').write('x')\n",
    "writing the project": f"open({str(Path.cwd() / 'imprint_was_here')!r}, 'w').write('x')\n",
    "writing Python's own files": "import os\nopen(os.__file__, 'a').write('x')\n",
    "a socket": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_STREAM)\n",
    "a server on localhost": "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\n"
    "s.connect(s.getsockname())\n",
    "killing the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n",
    "killing everything": "import os, signal\nos.kill(-1, signal.SIGKILL)\nos.killpg(0, signal.SIGKILL)\n",
    "endless output": "while True:\n    print('x' * 1000)\n",
    "a file that fills the disk": "f = open('/tmp/big', 'wb')\nfor _ in range(100):\n    f.write(bytes(1 << 20))\n",
    "mounting": "import ctypes\nassert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0\n",
    "a new user namespace": "import ctypes\nl = ctypes.CDLL(None)\nassert l.unshare(0x10020000) == 0\n"
    "assert l.mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0\n",
    "printing a verdict": 'import os\nprint(\'{"base": true, "extra": true}\', flush=True)\nos._exit(0)\n',
    "a daemon that stays": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(3600)\nos._exit(0)\n",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_contained_and_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPRINT_SECRET", "s3cret")
    monkeypatch.setattr(code, "SECONDS", 3.0)
    bounded.close()  # workers of other tests
    attack = "".join("    " + line for line in ATTACKS[name].splitlines(keepends=True))
    response = f"```python\ndef double(xs):\n{attack}{GOOD}```"
    start = time.perf_counter()
    assert verdicts(response) == {"passed_base": 0.0, "passed": 0.0}
    assert time.perf_counter() - start < 3 * isolation.WALL + 5
    assert not (Path.home() / "imprint_was_here").exists() and not Path("imprint_was_here").exists()
    assert not [p for p in _processes() if p == b"jailed"]
    assert verdicts(GOOD) == {"passed_base": 1.0, "passed": 1.0}, "the run goes on"
    security.seen(
        "code that forks, loops, fills memory or the disk, reads secrets, writes outside, kills, mounts or stays",
        "worth 0, nothing outside is read, changed or left over, and the next response is judged",
    )


def _processes() -> Iterator[bytes]:
    """Commands of processes that read their program from standard input as the jail's do."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parts = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"jail.py" in b" ".join(parts) and os.getpid() != int(path.parent.name):
            yield b"jailed" if (path.parent / "stat").read_text().split()[3] == str(os.getpid()) else b"other"
