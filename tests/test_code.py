"""Model-written code: what passes, and that nothing it does gets out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scored
from imprint.datasets import humaneval
from imprint.policies import answers
from imprint.runtime import needs
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.scores import code
from imprint.scoring import isolation, verification

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


WHOLE = "def double(xs):\n    return [2 * x for x in xs]"
WRONG = "def double(xs):\n    return xs"
FENCED = f"```python\n{WHOLE}\n```"


@pytest.mark.parametrize(
    ("response", "passed"),
    [
        (f"\\boxed{{{WHOLE}}}", 1),
        (f"The function is \\boxed{{\n{WHOLE}\n}}.", 1),
        (f"\\boxed{{{FENCED}}}", 1),
        (f"\\boxed{{\n{FENCED}\n}}", 1),
        ("\\boxed{def double(xs):\n    return [{1: 2 * x}[1] for x in xs]}", 1),
        (f"\\boxed{{{WHOLE}", 1),  # cut before the brace
        (f"```json\n{{}}\n```\n{FENCED}", 1),
        (f"{FENCED}\n```text\n[2, 4]\n```", 1),
        (f"\\boxed{{{WRONG}}}", 0),
        ("\\boxed{double}", 0),
        ("\\boxed{[2, 4]}", 0),
        ("\\boxed{}", 0),
    ],
)
def test_programs_in_boxes_and_among_other_blocks(response, passed):
    assert verdicts(response)["passed"] == passed


STYLES = ("think", "plan", "code", "knowledge", "examples")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("first", "answer", "passed"),
    [
        ("Add each to itself.", WHOLE, 1),
        ("Add each to itself.", FENCED, 1),
        ("Add each to itself.", f"\\boxed{{{WHOLE}}}", 1),
        ("Add each to itself.", f"\\boxed{{\n{FENCED}\n}}", 1),
        # What the prompt asks for, to the letter, where the first part is code: only the result is in the answer.
        (f"\n{WHOLE}\n", "\\boxed{double}", 1),
        (FENCED, "double([1, 2]) is [2, 4]", 1),
        (FENCED, "```text\n[2, 4]\n```", 1),
        (f"```python\n{WHOLE}\n", "\\boxed{double}", 1),  # a block without an end
        # The answer is the later word, right or wrong.
        (f"```python\n{WRONG}\n```", FENCED, 1),
        (FENCED, f"```python\n{WRONG}\n```", 0),
        (WHOLE, f"\\boxed{{{WRONG}}}", 0),
        ("I double each.", "\\boxed{double}", 0),
        ("def triple(xs):\n    return xs", "\\boxed{triple}", 0),
    ],
)
def test_a_program_is_found_where_the_prompt_puts_it(style, first, answer, passed):
    contexts = [Plug(name="prior_prompt", settings={"style": style, "boxed": True})]
    whole = f"<{style}>{first}</{style}>\n<answer>{answer}</answer>"
    for response in (whole, whole.removesuffix("</answer>"), f"Well:\n{whole}\nDone."):
        assert answers.judged(code.READS, contexts, response) == answers.rewarded(code.READS, contexts, response)
        assert verdicts(answers.judged(code.READS, contexts, response))["passed"] == passed


@pytest.mark.parametrize("style", [*STYLES, "none"])
def test_a_program_without_tags_is_found_too(style):
    contexts = [Plug(name="prior_prompt", settings={"style": style})]
    for response in (FENCED, WHOLE, f"Here:\n{FENCED}\nDone.", f"<{style}>{FENCED}"):
        assert verdicts(answers.judged(code.READS, contexts, response))["passed"] == 1
    assert verdicts(answers.judged(code.READS, contexts, "<answer>[2, 4]</answer>"))["passed"] == 0


def test_a_program_behind_a_role_and_a_prior_prompt():
    chain = [Plug(name="prior_prompt", settings={"style": "code"}), Plug(name="self_role")]
    response = f"[Role] You code.\n[Answer] <code>{WHOLE}</code>\n<answer>double</answer>"
    assert verdicts(answers.judged(code.READS, chain, response))["passed"] == 1
    assert verdicts(answers.judged(code.READS, chain[1:], f"[Role] You code.\n[Answer] {WHOLE}"))["passed"] == 1


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


GOOD = "    return [2 * x for x in xs]\n"


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
    rows = scored.scores(
        tmp_path, [scored.example(0, REFERENCE)], [scored.generation("0-0", GOOD)], scored.spec("code")
    )
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
    assert needs.problem("code", REFERENCE) is None
    assert needs.problem("code", {}) == "reference.task_id: missing"
    (tmp_path / "h.jsonl").write_text('{"task_id": "HumanEval/0", "prompt": ""}\n')
    with pytest.raises(ImprintError, match="HumanEval/0: has no entry_point"):
        list(humaneval.rows(humaneval.Settings(), {"h": tmp_path / "h.jsonl"}))
