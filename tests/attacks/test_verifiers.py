"""Checks of responses: nothing that a response or a row holds runs outside the jail, lasts, or pays for itself."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import scored
import security
from conftest import ROOT
from imprint.datasets import reasoning_gym as gym
from imprint.runtime import plugins
from imprint.runtime.errors import ImprintError
from imprint.scores import numeric, reasoning_gym
from imprint.scoring import bounded, isolation, verification
from imprint.training.rewards import Reward, Term

LISTS = ("string_insertion", "binary_matrix", "spiral_matrix", "n_queens")


def row(task: str) -> dict[str, Any]:
    return {"messages": [], "fields": {}, **next(iter(gym.rows(gym.Settings(task=task, n=1), {})))}


def verdicts(row: dict[str, Any], response: str) -> dict[str, float | None]:
    said = verification.verdicts("reasoning_gym", reasoning_gym.Settings(), row, response)
    return {verdict.metric: verdict.value for verdict in said}


def payload(code: str) -> str:
    """A list for Python's `eval` that runs code without a call in its text: it assigns methods and subscripts them."""
    numbers = ",".join(str(ord(character)) for character in code)
    return (
        "[c for s in [self] for g in [s.__class__.__getitem__] for s.__class__.__getitem__ in [chr] "
        f"for l in [[s[n] for n in [{numbers}]]] for s.__class__.__getitem__ in [''.join] for t in [s[l]] "
        "for s.__class__.__getitem__ in [exec] for r in [s[t]] for s.__class__.__getitem__ in [g] for c in ['a']]"
    )


@pytest.mark.parametrize("task", LISTS)
def test_a_list_is_read_and_never_run(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_SECRET")
    out = tmp_path / "stolen"
    attack = payload(f"import os;open({str(out)!r},'w').write(str(os.environ.get('HF_TOKEN')))")
    assert not reasoning_gym.safe(task, attack)
    assert reasoning_gym.safe(task, "[[1, 2], ['a', -3]]")
    assert verdicts(row(task), f"<answer>{attack}</answer>") == {"reward": 0.0, "solved": 0.0}
    reward = Reward(Term.model_validate("reasoning_gym.solved"), [])
    assert [reward.value(row(task), f"<answer>{text}</answer>") for text in (attack, "no", "[0]")] == [0.0, 0.0, 0.0]
    assert not out.exists()
    security.seen(
        "a response that a verifier of reasoning_gym would run as a list, in an evaluation or as a reward",
        "it is no literal list, so the verifier never gets it: 0",
    )


def test_what_gets_past_the_reading_still_meets_the_jail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst case: code runs in the process that gives the verdict. It finds nothing, and ends with its verdict."""
    steal = (
        "import os, socket; print(os.environ.get('HF_TOKEN'), os.path.exists('/etc/passwd')); "
        "import imprint.scores.numeric as s; s.score = lambda *_: [['accuracy', 1.0, None, None, False]]"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_SECRET")
    for statement, end in {
        "1 if __import__('os').environ.get('HF_TOKEN') else 0": 0,
        "1 if __import__('os').path.exists('/etc') or __import__('os').path.exists('/proc/1') else 0": 0,
        f"1 if __import__('os').path.exists({str(ROOT / 'README.md')!r}) else 0": 0,
        f"exec({steal!r}) or 7": 7,
    }.items():
        assert bounded.call("builtins:eval", [statement], warm=("imprint.scores.numeric",), jailed=True) == end
    for statement in (
        "__import__('os').fork()",
        "__import__('os').kill(__import__('os').getppid(), 9)",
        "__import__('socket').socket()",
        "open('/tmp/left', 'w')",
        "__import__('os').mkdir('/tmp/left')",
        "__import__('os').chmod('/tmp', 0o777)",
        "open('/tmp/../left', 'w')",
        "__import__('os').mkdir('/dev/left')",
        "__import__('os').setxattr('/tmp', 'user.left', b'x')",
        "__import__('resource').prlimit(__import__('os').getppid(), 7, (8, 8))",
        "__import__('os').sched_setaffinity(__import__('os').getppid(), {0})",
        "__import__('fcntl').fcntl(1, 8, __import__('os').getppid())",  # whom a file signals
    ):
        with pytest.raises(bounded.Stumble, match=r"PermissionError|Read-only"):
            bounded.call("builtins:eval", [statement], warm=("imprint.scores.numeric",), jailed=True)
    asked = ["numeric", {}, {"reference": {"answer": "5"}}, "It is 4."]
    said = bounded.call("imprint.scoring.verification:judge", asked, warm=("imprint.scores.numeric",), jailed=True)
    assert said[0][:2] == ["accuracy", 0.0], "what an earlier call changed in its process is gone"
    security.seen(
        "code that gets to run in the process of a verdict nevertheless",
        "it finds no environment, network, process or signal, and of files only Python's and the libraries', "
        "read-only; a wrong answer after it is still worth 0",
    )


def test_a_forged_reply_is_one_reply(tmp_path: Path) -> None:
    """Code in a child that writes to every descriptor it may have, as if it were the worker."""
    forge = (
        'import os\nfor d in range(64):\n  try: os.write(d, b\'["value", 1]\\n["value", 1]\\n\')\n'
        "  except OSError: pass\nos._exit(0)"
    )
    with pytest.raises(bounded.Failure):
        bounded.call("builtins:exec", [forge], warm=("math",), jailed=True)
    assert bounded.call("math:sqrt", [9], warm=("math",), jailed=True) == 3
    sound = ["accuracy", 1.0, None, None, False]
    for column, value in (
        (0, "other"),
        (0, ["a"]),
        (1, "1"),
        (1, 10**400),
        (2, "abc"),
        (2, 2**70),
        (3, {}),
        (3, "\ud800"),
    ):
        said = [[value if place == column else part for place, part in enumerate(sound)]]
        assert verification._sound(sound, numeric.METRICS) and not verification._sound(said[0], numeric.METRICS)
    for reply in ("[" * 100_000, '["value", ' + "9" * 5000 + "]", "x" * (2 << 20), '["error"]', "5"):
        write = forge.replace("""b'["value", 1]\\n["value", 1]\\n'""", f"{reply!r}.encode()")
        with pytest.raises(bounded.Failure):
            bounded.call("builtins:exec", [write], warm=("math",), jailed=True)
        assert bounded.call("math:sqrt", [9], warm=("math",), jailed=True) == 3
    security.seen(
        "a reply that is forged, endless or not JSON", "it counts as no verdict, and no later response is given it"
    )


def test_a_row_runs_nothing(tmp_path: Path) -> None:
    out = tmp_path / "touched"
    code = f"__import__('os').system('touch {out}')"
    rows = [
        {"task": "number_sorting", "entry": {"answer": code, "metadata": {}}},
        {"task": "simple_integration", "entry": {"answer": "x", "metadata": {"integrand": code, "variable": "x"}}},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"response": '["1"]', "reference": one}) + "\n" for one in rows), encoding="utf-8"
    )
    scored = subprocess.run(
        [sys.executable, "-m", "imprint.score", "reasoning_gym", str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow/scripts")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [json.loads(line)["solved"] for line in scored.stdout.splitlines()] == [0.0, 0.0]
    assert not out.exists()
    security.seen(
        "a dataset row that a verifier of reasoning_gym evaluates", "in the jail, where there is nothing to reach"
    )


ENDLESS = {
    "polynomial_multiplication": "1e999999999",
    "simple_integration": "N(pi, 99999999)",
    "intermediate_integration": "O(1)*(x+y)**99",
    "rush_hour": "1E+999999999999999999",
}


@pytest.mark.parametrize("task", ENDLESS)
def test_an_answer_that_never_ends(task: str) -> None:
    start = time.perf_counter()
    with contextlib.suppress(bounded.Failure):
        assert verdicts(row(task), f"<answer>{ENDLESS[task]}</answer>")["solved"] == 0.0
    assert time.perf_counter() - start < bounded.PATIENCE * bounded.LIMIT + 10


def test_a_verdict_that_runs_out_of_time_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["(a|aa)+$"]}]}
    rows = [scored.example(i, pattern) for i in range(3)]
    texts = ("a" * 60 + "!", "no", "aaa")
    said = [scored.generation(f"{i}-0", text) for i, text in enumerate(texts)]
    scores = scored.scores(tmp_path, rows, said, scored.spec("ifeval"))
    strict = {r["example_id"]: (r["value"], r["status"]) for r in scores if r["metric"] == "prompt_strict"}
    assert strict == {"0-0": (0.0, "unverified"), "1-0": (0.0, "scored"), "2-0": (1.0, "scored")}
    assert "1 of 3 checks came to no verdict, 1 of them ran out of time" in capsys.readouterr().err
    reward = Reward(Term.model_validate("ifeval"), [])
    assert reward.value(rows[0], texts[0]) == 0.0
    assert reward.failed == 1
    security.seen(
        "an answer whose check never ends", "ended after 1.8 s of CPU time; worth 0, and counted as unverified"
    )
    security.seen("a pattern from a dataset row that never ends", "ended after 1.8 s of CPU time; worth 0, and counted")


def test_a_score_that_stumbles_over_everything_is_an_error(tmp_path: Path) -> None:
    reference = {"task": "chain_sum", "entry": {"answer": {"~tuple": 1}}}
    rows = [scored.example(i, reference) for i in range(2)]
    said = [scored.generation(f"{i}-0", "1") for i in range(2)]
    with pytest.raises(ImprintError, match=r"2 of 2 checks came to no verdict, the first because of: .*TypeError"):
        scored.scores(tmp_path, rows, said, scored.spec("reasoning_gym"))


def test_results_that_are_slow_to_compare_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a million numbers with one hash, in a set and as keys; and a huge zero of a polynomial."""
    from imprint.scores import code
    from test_code import REFERENCE

    monkeypatch.setattr(code, "SECONDS", 2.0)
    many = "{hex(k * (2**61 - 1)) for k in range(1, 250001)}"
    forged = (
        "import sys, json\ndef double(xs):\n    frame = sys._getframe(1)\n    said = frame.f_locals['said']\n"
        f"    told = json.dumps({{'set': [{{'int': h}} for h in {many}]}})\n"
        "    print('\\n' + said + json.dumps({'base': [told], 'extra': []}), flush=True)\n"
        "    import os\n    os._exit(0)\n"
    )
    start = time.perf_counter()
    try:
        said = verification.verdicts("code", code.Settings(), {"reference": REFERENCE}, f"```python\n{forged}```")
        assert all(verdict.value == 0.0 for verdict in said)
    except bounded.Failure:
        pass
    zero = {
        **REFERENCE,
        "task_id": "HumanEval/32",
        "inputs": json.dumps({"base": [[[1, 2, 3, 4, 5, 6, 7, 8]]], "extra": []}),
    }
    huge = "```python\ndef double(xs):\n    return 1 << (15 << 22)\n```"
    try:
        said = verification.verdicts("code", code.Settings(), {"reference": zero}, huge)
        assert all(verdict.value == 0.0 for verdict in said)
    except bounded.Failure:
        pass
    assert time.perf_counter() - start < 90
    bounded.close()
    security.seen(
        "results of code that are slow to unpack or to compare", "bounded as every check is; worth 0, and counted"
    )


def test_isolation_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "jail.py"
    broken.write_text("print('unshare: not permitted')", encoding="utf-8")
    monkeypatch.setattr(isolation, "JAIL", broken)
    bounded.close()
    for score, question in (("math", {"reference": {"answer": "1"}}), ("reasoning_gym", row("chain_sum"))):
        assert plugins.load("scores", score).JAILED
        with pytest.raises(ImprintError, match="not permitted"):
            verification.verdicts(score, plugins.load("scores", score).Settings(), question, "1")
    security.seen(
        "a system without namespaces", "what needs the jail is refused, with the reason; nothing runs without it"
    )
