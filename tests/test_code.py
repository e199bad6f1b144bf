"""Model-written code: what passes, and that nothing it does gets out."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint import bounded, isolation, scoring, tables, verification
from imprint.datasets import humaneval
from imprint.errors import ImprintError
from imprint.scores import code
from test_scoring import SPEC, generation

REFERENCE = {
    "task_id": "HumanEval/x",
    "prompt": 'from typing import List\n\n\ndef double(xs: List[float]) -> List[float]:\n    """ Twice each. """\n',
    "entry_point": "double",
    "canonical_solution": "    return [2 * x for x in xs]\n",
    "inputs": json.dumps({"base": [[[1, 2]], [[]]], "extra": [[[0.1, 100.0]], [[float("inf")]]]}),
    "atol": 0,
}


def verdicts(response: str) -> dict[str, float | None]:
    return {v.metric: v.value for v in code.score({"reference": REFERENCE}, response, code.Settings())}


@pytest.mark.parametrize(
    ("response", "base", "passed"),
    [
        ("Here:\n```python\ndef double(xs):\n    return [x + x for x in xs]\n```\nDone.", 1, 1),
        ("    return [2 * x for x in xs]\n", 1, 1),
        ("```\ndef double(xs: List[float]):\n    return [2 * x for x in xs]\n```", 1, 1),
        ("```python\ndef double(xs):\n    return [2 * x + (x > 50) for x in xs]", 1, 0),
        ("```python\ndef double(xs):\n    return xs\n```", 0, 0),
        ("```python\ndef double(xs):\n    return tuple(2 * x for x in xs)\n```", 0, 0),
        ("```python\ndef other(xs):\n    return xs\n```", 0, 0),
        ("```python\ndef double(xs):\n    raise SystemExit(0)\n```", 0, 0),
        ("I do not know.", 0, 0),
        ("", 0, 0),
    ],
)
def test_what_passes(response, base, passed):
    assert verdicts(response) == {"passed_base": base, "passed": passed}


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


@pytest.mark.parametrize("name", FORGED)
def test_forging_does_not_pass(name):
    assert verdicts(f"```python\n{FORGED[name]}```") == {"passed_base": 0.0, "passed": 0.0}


def test_results_of_megabytes_are_told_apart_by_their_digest():
    long = {**REFERENCE, "inputs": json.dumps({"base": [[[0.5] * 100_000]] * 4, "extra": [[[1] * 100_000]] * 4})}
    for response, passed in ((GOOD, 1.0), ("    return [2 * x for x in xs[1:]] + [0]\n", 0.0)):
        found = {v.metric: v.value for v in code.score({"reference": long}, response, code.Settings())}
        assert found == {"passed_base": passed, "passed": passed}


def test_a_reference_that_does_not_run_is_an_error():
    broken = {**REFERENCE, "canonical_solution": "    return xs.nothing\n"}
    with pytest.raises(ImprintError, match="its own canonical_solution of 'double' does not run"):
        code.score({"reference": broken}, GOOD, code.Settings())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=8,
    )
)
def test_what_is_packed_comes_back(value):
    space: dict = {}
    exec(code.HARNESS, space)
    back = code._unpack(json.loads(json.dumps(space["pack"](value))))
    assert code._same(value, back, 0) and type(back) is type(value)


# Each would return the right answer if it had its way with the system first.
GOOD = "    return [2 * x for x in xs]\n"
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
    "a socket to somewhere": "import socket\nsocket.create_connection(('1.1.1.1', 53), 2)\n",
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
def test_attacks_are_contained_and_fail(name, monkeypatch):
    monkeypatch.setenv("IMPRINT_SECRET", "s3cret")
    monkeypatch.setattr(code, "SECONDS", 3.0)
    bounded.close()  # workers of other tests
    attack = "".join("    " + line for line in ATTACKS[name].splitlines(keepends=True))
    response = f"```python\ndef double(xs):\n{attack}{GOOD}```"
    start = time.perf_counter()
    found = verdicts(response)
    if name == "killing everything":  # it reaches only itself
        assert found["passed"] in (0.0, 1.0)
    else:
        assert found == {"passed_base": 0.0, "passed": 0.0}, name
    assert time.perf_counter() - start < 3 * isolation.WALL + 5
    assert not (Path.home() / "imprint_was_here").exists() and not Path("imprint_was_here").exists()
    assert not [p for p in _processes() if p == b"jailed"]
    assert verdicts(GOOD) == {"passed_base": 1.0, "passed": 1.0}, "the run goes on"


def _processes():
    """Commands of processes that read their program from standard input as the jail's do."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parts = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"jail.py" in b" ".join(parts) and os.getpid() != int(path.parent.name):
            yield b"jailed" if (path.parent / "stat").read_text().split()[3] == str(os.getpid()) else b"other"


def test_what_the_jail_holds(monkeypatch):
    found = isolation.run(
        "import os\nprint(sorted(os.environ), os.path.exists('/etc'), os.path.exists('/proc/1'), os.getcwd())"
    )
    assert found.end == "ended" and found.text.split("]")[1].split() == ["False", "False", "/tmp"]
    assert isolation.run("raise SystemExit(3)").end == "failed"
    assert isolation.run("import time\ntime.sleep(60)", 1.0).end == "timeout"
    late = "import time\ntime.sleep(2)\nprint('done')"
    assert isolation.run(late, 1.0).text == "done\n", "waiting takes no CPU time, as on a machine that is busy"
    monkeypatch.setattr(isolation, "WALL", 60)
    assert isolation.run("while True: pass", 1.0).end == "failed", "the CPU time is what ends it"
    assert isolation.run("print('x' * 100000)").end == "output"
    assert isolation.run("open('/tmp/a', 'w').write('x')\nprint(open('/tmp/a').read())").text == "x\n"
    assert "namespaces" in isolation.check()


def test_without_isolation_nothing_runs(monkeypatch, tmp_path):
    broken = tmp_path / "jail.py"
    broken.write_text("print('unshare: not permitted')")
    monkeypatch.setattr(isolation, "JAIL", broken)
    with pytest.raises(ImprintError, match="not permitted"):
        isolation.run("print(1)")


def test_the_isolation_is_in_the_scores(tmp_path):
    version = verification.version("code")
    assert version == f"code {code.VERSION}, isolated by {isolation.check()}"
    text = json.dumps(REFERENCE)
    row = {"example_id": "0-0", "messages": [{"role": "user", "content": "?"}], "reference": json.loads(text)}
    tables.write_dataset(tmp_path / "d.parquet", "d", [row], "0")
    tables.write(tmp_path / "g.parquet", "generations", [generation("0-0", GOOD)])
    spec = {**SPEC, "score": {"name": "code", "settings": {}}}
    scoring.run(
        generations=tmp_path / "g.parquet", dataset=tmp_path / "d.parquet", spec=spec, out=tmp_path / "s.parquet"
    )
    rows = tables.read(tmp_path / "s.parquet", "scores").to_pylist()
    assert {row["eval_version"] for row in rows} == {version}
    assert {row["metric"]: row["value"] for row in rows}["passed"] == 1.0


def test_the_reader_keeps_what_the_score_needs(tmp_path):
    row = {**REFERENCE, "base_input": [[[1]]], "plus_input": [[[float("nan")]]], "test": "", "contract": ""}
    row = {key: row[key] for key in row if key != "inputs"}
    (tmp_path / "h.jsonl").write_text(json.dumps(row) + "\n")
    (made,) = humaneval.rows(humaneval.Settings(), {"h": tmp_path / "h.jsonl"})
    assert "```python\nfrom typing import List" in made["messages"][0]["content"]
    assert set(made["reference"]) == set(REFERENCE)
    assert code.score(made, GOOD, code.Settings())[1].value == 1.0
    with pytest.raises(ImprintError, match="reference: found"):
        code.score({"reference": {}}, GOOD, code.Settings())
    (tmp_path / "h.jsonl").write_text('{"task_id": "HumanEval/0", "prompt": ""}\n')
    with pytest.raises(ImprintError, match="HumanEval/0: has no entry_point"):
        list(humaneval.rows(humaneval.Settings(), {"h": tmp_path / "h.jsonl"}))
