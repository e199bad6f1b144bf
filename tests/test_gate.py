"""The gate: policies, exit statuses, summaries, and answers that are missing or stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import logs
from conftest import ROOT
from imprint import gate
from imprint.report import gating
from imprint.runtime.errors import ImprintError
from imprint.runtime.schemas import SCHEMAS


def answer(name: str, verdict: str, kind: str = "gain", **more: Any) -> dict[str, Any]:
    row = dict.fromkeys(SCHEMAS["answers"].names)
    told = {"question": name, "asks": f"Is {name} so?", "kind": kind, "eval": "e1", "arm": "b", "control": "a"}
    numbers = {"difference": 0.1, "ci_low": 0.0, "ci_high": 0.2, "n_pairs": 9, "n_seeds": 0, "direction": 1}
    return {**row, **told, **numbers, "metric": "acc", "margin": 0.0, "verdict": verdict, **more}


@pytest.mark.parametrize(
    ("required", "kind", "verdict", "direction", "outcome"),
    [
        ("better", "gain", "better", 1, "pass"),
        ("better", "gain", "better", -1, "pass"),
        ("better", "gain", "higher", 1, "pass"),
        ("better", "gain", "higher", -1, "fail"),
        ("better", "gain", "lower", -1, "pass"),
        ("better", "gain", "worse", 1, "fail"),
        ("better", "gain", "undecided", 1, "undecided"),
        ("better", "gain", "no data", 1, "fail"),
        ("better", "gain", "not tested", 1, "fail"),
        ("better", "equivalence", "equivalent", 1, "fail"),
        ("kept", "retention", "kept", 1, "pass"),
        ("kept", "retention", "lost", 1, "fail"),
        ("kept", "retention", "undecided", 1, "undecided"),
        ("kept", "equivalence", "equivalent", 1, "pass"),
        ("kept", "equivalence", "better", 1, "pass"),
        ("kept", "equivalence", "worse", 1, "fail"),
    ],
)
def test_what_a_verdict_counts_as(required: str, kind: str, verdict: str, direction: int, outcome: str) -> None:
    policy = gating.Policy.model_validate({required: ["q1"]})
    (finding,) = gating.findings(policy, [answer("q1", verdict, kind, direction=direction), answer("q2", "worse")])
    assert finding.outcome == outcome == gating.overall([finding])


@pytest.mark.parametrize("counted", ["pass", "fail", "undecided"])
def test_the_policy_says_what_undecided_counts_as(counted: str) -> None:
    policy = gating.Policy.model_validate({"better": ["q1"], "undecided": counted})
    assert gating.overall(gating.findings(policy, [answer("q1", "undecided")])) == counted


def test_the_worst_counts_and_every_eval_of_a_question() -> None:
    policy = gating.Policy.model_validate({"better": ["q1"]})
    rows = [answer("q1", "better"), answer("q1", "undecided", eval="e2"), answer("q1", "worse", eval="e3")]
    assert gating.overall(gating.findings(policy, rows[:2])) == "undecided"
    assert gating.overall(gating.findings(policy, rows)) == "fail"


def test_questions_that_are_not_there_or_of_another_kind() -> None:
    with pytest.raises(ImprintError, match="there is no question 'q2'; there are: q1"):
        gating.findings(gating.Policy.model_validate({"kept": ["q2"]}), [answer("q1", "better")])
    with pytest.raises(ImprintError, match="'q1' is a question of gain"):
        gating.findings(gating.Policy.model_validate({"kept": ["q1"]}), [answer("q1", "better")])


@given(st.text())
def test_nothing_is_markup(text: str) -> None:
    plain = gating.plain(text)
    assert not set(plain) & set("<>|`*_[]()!~\\\n\r\t@:$\"'")


def test_the_summary_is_a_table_whatever_a_config_says() -> None:
    policy = gating.Policy.model_validate({"better": ["q1"]})
    rows = [answer("q1", "better", asks="<img src=x> | [a](b) @all\n# `x`", eval="e|1")]
    lines = gating.markdown(gating.findings(policy, rows)).splitlines()
    assert lines[0] == "### Gate: pass" and all(line.count("|") == 7 for line in lines[2:]) and len(lines) == 5


# The command


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        gate.main([str(argument) for argument in arguments])
    out = capsys.readouterr()
    code = caught.value.code
    assert isinstance(code, int)
    return code, out.out, out.err


def policy_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return path


def test_two_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {f"q{i}": float(i % 2) for i in range(60)}
    a = logs.of_values(tmp_path / "a/samples_t.jsonl", values)
    b = logs.of_values(
        tmp_path / "b/samples_t.jsonl",
        {key: min(1.0, value + (i % 4 == 0)) for i, (key, value) in enumerate(values.items())},
    )
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    policy = policy_of(tmp_path, "better: [t]\n")
    status, out, _ = run(capsys, "--policy", policy, "--summary", summary, a, b)
    assert status == 0 and summary.read_text() == "before\n" + out
    assert run(capsys, "--policy", policy, b, a)[0] == 1
    policy = policy_of(tmp_path, "kept: [t]\nmargin: 0.9\n")
    assert run(capsys, "--policy", policy, b, a)[0] == 0
    policy = policy_of(tmp_path, "kept: [t]\nmargin: 0.25\n")
    assert run(capsys, "--policy", policy, b, a)[0] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("better: [t]\nbest: [t]\n", "unknown key 'best'"),
        ("undecided: pass\n", "names no question"),
        ("better: [t]\nkept: [t]\n", "write each question once"),
        ("better: t\n", "a list"),
        ("kept: [t]\n", "margin: missing"),
        ("better: [u]\n", "write logs of the same evals"),
    ],
)
def test_no_answer_is_an_error_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    a, b = (logs.of_values(tmp_path / side / "samples_t.jsonl", {"q": 1.0}) for side in "ab")
    status, _, err = run(capsys, "--policy", policy_of(tmp_path, text), a, b)
    assert status == gate.NO_ANSWER == 3 and said in err


def test_a_wrong_command_is_not_undecided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys)[0] == 3
    status, _, err = run(capsys, "--policy=")
    assert status == 3 and "no policy is named; write `--policy FILE`, or `make gate POLICY=FILE`" in err
    assert run(capsys, "--policy", policy_of(tmp_path, "better: [t]"), "a")[0] == 3


def test_an_experiment_that_has_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    policy = policy_of(tmp_path, "better: [roles_gain]\n")
    config = tmp_path / "config.yaml"
    config.write_text(
        (ROOT / "config/config.yaml").read_text().replace("results: results", "results: results/never_run")
    )
    status, _, err = run(capsys, "--policy", policy, "--config", config)
    assert status == 3 and "there are no answers yet; run `snakemake" in err
