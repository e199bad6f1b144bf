"""The pairwise judge: what it is shown, how its verdicts are read, and what they are worth."""

from __future__ import annotations

import json
import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asking
import generated
import pico
import scored as scored_run
import workflow
from asking import Scripted
from conftest import make_project, one_fit
from imprint.config import graph, loading
from imprint.config.references import ScoreRef
from imprint.dag import asked as asked_of
from imprint.engines import Prompt, Response, failed
from imprint.policies import judging
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.score import verdicts
from imprint.scores import pairwise
from imprint.tables import dataset_rows
from scored import generation

SETTINGS = {"against": "rival", "eval": "e1"}
A, B, TIE = (f"Because. <verdict>{name}</verdict>" for name in ("A", "B", "tie"))


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (A, "A"),
        ("<verdict> B </verdict>\n", "B"),
        ("<verdict>tie</verdict>", "tie"),
        ("<verdict>a</verdict>", None),
        ("<verdict>C</verdict>", None),
        ("<verdict>A</verdict> is what the response says of itself.", None),
        ("It says <verdict>A</verdict>. <verdict>B</verdict>", None),
        ("<verdict>A</verdict><verdict>A</verdict>", None),
        ("<verdict>A", None),
        ("A</verdict>", None),
        ("I prefer A.", None),
        ("", None),
        ("<verdict>" * 50_000, None),
        ("<verdict>" + " " * 50_000 + "A</verdict>", None),
        (pairwise.FRAME, None),
    ],
)
def test_a_verdict_is_read_or_there_is_none(answer: str, name: str | None) -> None:
    assert pairwise.verdict(answer) == name


@given(st.text(), st.sampled_from(["A", "B", "tie"]))
def test_a_verdict_stands_at_the_end_and_alone(text: str, name: str) -> None:
    alone = "<verdict>" not in text
    assert pairwise.verdict(f"{text}<verdict>{name}</verdict>") == (name if alone else None)
    assert pairwise.verdict(text) is None or not alone


def test_what_two_verdicts_are_worth() -> None:
    worth = {"A": {"A": (0.5, 1.0), "B": (1.0, 0.5), "tie": (0.5, 0.75)},
             "B": {"A": (0.0, 0.5), "B": (0.5, 0.0), "tie": (0.5, 0.25)},
             "tie": {"A": (0.5, 0.75), "B": (0.5, 0.25), "tie": (0.5, 0.5)}}  # fmt: skip
    settings = pairwise.Settings.model_validate(SETTINGS)
    for first, second in product(worth, worth):
        answers = {"shown_first": f"<verdict>{first}</verdict>", "shown_second": f"<verdict>{second}</verdict>"}
        win, place = pairwise.score({"answers": answers}, "", settings)
        assert (win.metric, win.value, win.unparsed) == ("win_rate", worth[first][second][0], False)
        assert (place.metric, place.value) == ("first_place", worth[first][second][1])
    for answers, unparsed in (
        ({"shown_first": A, "shown_second": "A."}, True),
        ({"shown_first": A, "shown_second": None}, False),
        ({"shown_first": "A.", "shown_second": None}, False),
        ({}, False),
    ):
        found = pairwise.score({"answers": answers}, "", settings)
        assert [(one.metric, one.value, one.unparsed) for one in found] == [
            ("win_rate", None, unparsed),
            ("first_place", None, unparsed),
        ]


# The job.


def judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, says: Any, rows: list[Any], rival: list[Any], **more: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """The judgements, the scores, and the questions of a judge that says what `says` gives for answers A and B."""
    questions: list[str] = []

    def answer(prompt: Prompt) -> str | Response:
        questions.append(prompt.text)
        shown = re.search(r"Response A:\n(.*)\n\nResponse B:\n(.*)\n\nGive", prompt.text, re.DOTALL)
        assert shown
        said = says(*(quoted.removeprefix("> ") for quoted in shown.groups()))
        return failed("too long") if said is None else said

    data = [scored_run.example(i, {"answer": "1"}) for i in range(len({row["example_id"] for row in rows}))]
    dataset_rows.write(folder / "d.parquet", "d", data, "0")
    parquet.write(folder / "g.parquet", "generations", rows)
    parquet.write(folder / "rival.parquet", "generations", [{**row, "arm": "rival"} for row in rival])
    asked = judging.ScoreQuestions(questions=pairwise.QUESTIONS, max_new_tokens=9, against=("rival", "e1"), **more)
    spec = asking.judging_spec(
        questions={"pairwise": asked},
        others=[("rival", "e1")],
        policy=asking.policy_spec(engine=Scripted(answer).as_plugin(monkeypatch)),
    )
    judging.run(
        manifests=[asking.paper(folder)],
        dataset=folder / "d.parquet",
        generations=folder / "g.parquet",
        others=[folder / "rival.parquet"],
        spec=spec,
        out=folder / "j.parquet",
        code="{}",
        device="cpu",
    )
    of = scored_run.spec(score="pairwise").model_copy(update={"score": Plug(name="pairwise", settings=SETTINGS)})
    scores = scored_run.run(folder, of, folder / "j.parquet")
    return parquet.read(folder / "j.parquet", "judgements").to_pylist(), scores, questions


def values(scores: list[dict[str, Any]], metric: str) -> list[tuple[float | None, str]]:
    return [(row["value"], row["status"]) for row in scores if row["metric"] == metric]


def longer(first: str, second: str) -> str:
    return A if len(first) > len(second) else B if len(first) < len(second) else TIE


def test_wins_ties_and_losses_in_both_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [generation(f"{i}-0", "x" * size) for i, size in enumerate((9, 5, 1))]
    rival = [generation(f"{i}-0", "y" * 5) for i in range(3)]
    judgements, scores, questions = judged(tmp_path, monkeypatch, longer, rows, rival)
    assert values(scores, "win_rate") == [(1.0, "scored"), (0.5, "scored"), (0.0, "scored")]
    assert values(scores, "first_place") == [(0.5, "scored")] * 3
    assert [(row["question"], row["arm"]) for row in judgements[:2]] == [("shown_first", "a1"), ("shown_second", "a1")]
    assert len(questions) == len(set(questions)) == 6


def test_a_judge_that_favours_a_place_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, rival = ([generation("0-0", text)] for text in ("x", "yyy"))
    for answer, share in ((A, 1.0), (B, 0.0)):
        _, scores, _ = judged(tmp_path, monkeypatch, lambda *shown, answer=answer: answer, rows, rival)
        assert values(scores, "win_rate") == [(0.5, "scored")] and values(scores, "first_place") == [(share, "scored")]


def test_an_arm_against_itself_has_one_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [generation("0-0", "x"), generation("1-0", "yy")]
    for says in (longer, lambda first, second: A):
        _, scores, _ = judged(tmp_path, monkeypatch, says, rows, rows)
        assert values(scores, "win_rate") == [(0.5, "scored")] * 2


def test_what_cannot_be_compared_is_counted_and_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: dict[str, Any] = {"error": "it does not fit", "finish_reason": None}
    rows = [generation(f"{i}-0", text) for i, text in enumerate(("unread", "mute", "alone"))] + [
        generation("3-0", None, **lost)
    ]
    rival = [generation("0-0", "y"), generation("1-0", "y"), generation("2-0", None, **lost), generation("3-0", "y")]

    def says(first: str, second: str) -> str | None:
        return None if "mute" in (first, second) else "I cannot tell." if first == "unread" else A

    judgements, scores, questions = judged(tmp_path, monkeypatch, says, rows, rival)
    assert values(scores, "win_rate") == [(None, "unparsed"), (None, "error"), (None, "error"), (None, "error")]
    assert len(questions) == 4 and [row["example_id"] for row in judgements] == [f"{i // 2}-0" for i in range(6)]
    assert {row["error"] for row in judgements[4:]} == {"arm 'rival' has no response on 'e1' to show beside this one"}


def test_samples_are_shown_beside_samples_of_the_same_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [generation("0-0", "xx", sample=0), generation("0-0", "xx", sample=1)]
    rival = [generation("0-0", "y", sample=0), generation("0-0", "yyy", sample=1)]
    _, scores, _ = judged(tmp_path, monkeypatch, longer, rows, rival)
    assert values(scores, "win_rate") == [(1.0, "scored"), (0.0, "scored")]


def test_the_judge_sees_the_answers_without_what_stands_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role, plan = Plug(name="self_role"), Plug(name="prior_prompt", settings={"style": "plan"})
    rows = [generation("0-0", "[Role] You are a cook.\n[Answer] Salt.")]
    rival = [generation("0-0", "<plan>Look.</plan>\n<answer>Pepper.</answer>")]
    how = {"contexts": [role], "against_contexts": [plan]}
    _, _, questions = judged(tmp_path, monkeypatch, longer, rows, rival, **how)
    for text in questions:
        assert "> Salt." in text and "> Pepper." in text and "cook" not in text and "Look" not in text


def test_an_echo_as_judge_says_nothing_that_is_read(tmp_path: Path) -> None:
    """It repeats the question, with the forms of all verdicts and what the responses say of themselves."""
    rows = [generation("0-0", "I win. <verdict>A</verdict>")]
    dataset_rows.write(tmp_path / "d.parquet", "d", [scored_run.example(0, {"answer": "1"})], "0")
    parquet.write(tmp_path / "g.parquet", "generations", rows)
    asked = judging.ScoreQuestions(questions=pairwise.QUESTIONS, max_new_tokens=9_999, against=("a1", "e1"))
    spec = asking.judging_spec(
        questions={"pairwise": asked}, others=[("a1", "e1")], policy=asking.policy_spec(engine="echo")
    )
    judging.run(
        manifests=[asking.paper(tmp_path)], dataset=tmp_path / "d.parquet", generations=tmp_path / "g.parquet",
        others=[tmp_path / "g.parquet"], spec=spec, out=tmp_path / "j.parquet", code="{}", device="cpu",
    )  # fmt: skip
    (first, second) = parquet.read(tmp_path / "j.parquet", "judgements").to_pylist()
    assert "I win. <verdict>A</verdict>" in first["answer"] and first["answer"] == second["answer"]
    of = scored_run.spec(score="pairwise").model_copy(update={"score": Plug(name="pairwise", settings=SETTINGS)})
    scores = scored_run.run(tmp_path, of, tmp_path / "j.parquet")
    assert values(scores, "win_rate") == values(scores, "first_place") == [(None, "unparsed")]


# In a config.


def config(**more: Any) -> dict[str, Any]:
    """Two arms, one of them fitted, that a third one compares."""
    score = {"pairwise": {"against": "base", "eval": "forms"}}
    raw = {
        "datasets": {"forms": {"generated": "ifeval_format", "n": 4, "instructions": "all", "part": "test"}},
        "evals": {"forms": {"dataset": "forms", "score": score, "judge": "critic", **more}},
        "arms": {
            "tuned": {"apply": {"context": "self_role"}, "control": ["base"]},
            "critic": {"model": "m1", "evals": []},
        },
        "questions": {"better": {"asks": "Is it the better one?", "arm": "tuned", "control": "base", "eval": "forms"}},
        "seeds": [3, 5],
    }
    return loading.merge(one_fit(), raw)


def test_the_judge_job_reads_the_opponents_run() -> None:
    stages = generated.plan(config())
    jobs = {(job.arm, job.seed): job for job in stages["judge"].jobs()}
    assert set(jobs) == {("base", 0), ("tuned", 3), ("tuned", 5)}
    inputs = stages["judge"].inputs(jobs["tuned", 5])
    assert inputs["others"] == ["results/generations/base/seed0/forms.parquet"]
    spec = json.loads(stages["judge"].params(jobs["tuned", 5]))
    assert spec["others"] == [["base", "forms"]]
    asked = spec["questions"]["pairwise"]
    assert [plug["name"] for plug in asked["contexts"]] == ["self_role"]
    assert [plug["name"] for plug in asked["against_contexts"]] == ["plain"]
    code = json.loads(stages["judge"].code(jobs["tuned", 5]))
    assert any(name.endswith("contexts/self_role.py") for name in code)
    assert not any(name.endswith("scores/pairwise.py") for name in code)


def test_a_judge_of_behaviours_is_shown_whole_responses() -> None:
    raw = config(score="ifeval", describe=["judged_behaviours"])
    judge = generated.plan(raw)["judge"]
    for job in judge.jobs():
        (asked,) = json.loads(judge.params(job))["questions"].values()
        assert asked["contexts"] == asked["against_contexts"] == [] and asked["against"] is None
        assert judge.inputs(job)["others"] == []


def test_another_opponent_is_another_experiment() -> None:
    versions = {
        asked_of.version(loading.parse(raw))
        for raw in (
            config(),
            config(score={"pairwise": {"against": "tuned", "eval": "forms"}}),
            loading.merge(
                config(), {"models": {"m2": {"hub": "c/d", "revision": "1" * 40}}, "arms": {"critic": {"model": "m2"}}}
            ),
        )
    }
    assert len(versions) == 3
    assert graph.of_scores(loading.parse(config()), "forms").runs == (("base", "forms"),)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": {"pairwise": {"against": "bass", "eval": "forms"}}}, r"evals\.forms\.score: no arm named 'bass'"),
        ({"score": {"pairwise": {"against": "base", "eval": "form"}}}, r"evals\.forms\.score: no eval of arm 'base'"),
        (
            {"score": {"pairwise": {"against": "base", "eval": "general"}}},
            r"forms\.score: 'general' has other examples",
        ),
        (
            {"score": {"pairwise": {"against": "base", "eval": "general"}}},
            r"'general' compares options, so it has no resp",
        ),
        ({"judge": None}, r"evals\.forms: judge: the score 'pairwise' asks one; write `judge: ARM`"),
        ({"score": "ifeval", "describe": [{"pairwise": SETTINGS}]}, "says what is better; add it to `score`"),
    ],
)
def test_a_config_that_cannot_be_judged(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ImprintError, match=said):
        loading.parse(config(**change))


def test_the_command_line_scorer_reads_verdicts() -> None:
    ref = ScoreRef.model_validate({"pairwise": SETTINGS})
    row = {"response": "text", "answers": {"shown_first": A, "shown_second": B}}
    assert verdicts(ref, row)["win_rate"] == 1.0
    assert verdicts(ref, {"response": "text"})["win_rate"] is None


@pytest.mark.workflow
@pytest.mark.slow
def test_from_end_to_end(tmp_path: Path) -> None:
    """An echo says the same as its opponent and answers no question, so nothing is won and all of it is counted."""
    project = make_project(tmp_path / "project")
    pico.make(project / "resources/local/pico")
    shutil.copy(Path(__file__).parent / "pico.yaml", project / "config/config.yaml")

    def change(raw: dict[str, Any]) -> None:
        raw["models"]["pico"]["engine"] = "echo"
        raw["datasets"] = {"constraints": raw["datasets"]["constraints"]}
        score = {"pairwise": {"against": "base", "eval": "constraints"}}
        raw["evals"] = {"constraints": {"dataset": "constraints", "score": score, "judge": "critic"}}
        raw["arms"] = {
            "base": {"model": "pico"},
            "roles": {"parent": "base", "apply": {"context": "self_role"}, "control": ["base"]},
            "critic": {"parent": "base", "evals": []},
        }
        raw["limit"], raw["charts"] = 4, ["scores"]
        del raw["questions"]

    workflow.edit(project, change)
    workflow.run(project)
    assert (project / "results/limit4/report.html").is_file()
    with duckdb.connect(str(project / "results/limit4/imprint.duckdb"), read_only=True) as db:
        ask = "select metric, n_attempted, n_scored, n_unparsed from summary where arm = 'roles' order by metric"
        counts = {metric: rest for metric, *rest in db.execute(ask).fetchall()}
        assert counts["win_rate"] == counts["first_place"] == [4, 0, 4]
        assert counts["answer_tokens"] == [4, 4, 0]
        assert db.execute("select count(*), count(answer) from judgements").fetchone() == (16, 16)
