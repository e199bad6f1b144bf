"""Judged scores: what the judge is asked, what its answers are worth, and that nothing is guessed or asked twice."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

import asking
import fake_results as fake
import pico
import scored as scored_run
import workflow
from asking import Scripted
from conftest import make_project
from imprint.config import loading
from imprint.config.evals import Eval
from imprint.config.references import ScoreRef
from imprint.engines import Prompt, Response, failed
from imprint.models.chat_text import Message
from imprint.policies import judging
from imprint.runtime import parquet, schemas
from imprint.runtime.errors import ImprintError
from imprint.runtime.plugins import Plug
from imprint.score import verdicts
from imprint.scores import behaviours, judged_behaviours
from imprint.scoring import score_run
from imprint.tables import dataset_rows
from imprint.training import rewards
from test_behaviours import LABELLED


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("It checks its sum once. <count>1</count>", 1),
        ("<count> 0 </count>", 0),
        ("<count>2</count> ... so <count>2</count>.", 2),
        ("<count>2</count>, or rather <count>3</count>", None),
        ("Twice, I think.", None),
        ("<count>two</count>", None),
        ("<count>-1</count>", None),
        ("<count>1", None),
        ("1</count>", None),
        ("", None),
        ("<count>" * 50_000, None),
    ],
)
def test_a_count_is_read_or_there_is_none(answer: str, number: int | None) -> None:
    assert judged_behaviours.count(answer) == number


def test_no_answer_and_an_unreadable_one_are_null() -> None:
    answers = {
        "verification": "<count>3</count>",
        "backtracking": "<count>0</count>",
        "subgoals": "?",
        "style_code": None,
    }
    found = judged_behaviours.score({"answers": answers}, "text", judged_behaviours.Settings())
    assert [verdict.metric for verdict in found] == list(judged_behaviours.METRICS)
    value = {v.metric.removeprefix("judged_"): (v.value, v.unparsed) for v in found}
    assert value["verification"] == (1.0, False) and value["backtracking"] == (0.0, False)
    assert value["subgoals"] == (None, True)
    assert value["style_code"] == value["style_plan"] == (None, False)
    assert judged_behaviours.DEFINITIONS.keys() == behaviours.METRICS.keys()


def test_a_question_holds_task_and_response_as_they_are() -> None:
    messages: list[Message] = [{"role": "user", "content": "What is {response}?"}]
    request = judging.question(judged_behaviours.QUESTIONS["subgoals"], messages, "It is {task}. \\1 {x}", 9)
    (turn,) = request.messages
    assert "<task>\nWhat is {response}?\n</task>" in turn["content"] and "It is {task}. \\1 {x}" in turn["content"]
    assert judged_behaviours.DEFINITIONS["subgoals"] in turn["content"] and "BEHAVIOUR" not in turn["content"]
    assert request.max_new_tokens == 9
    more = judging.question("{task}", [{"role": "system", "content": "Be brief."}, *messages], "", 9)
    assert more.messages[0]["content"] == "System: Be brief.\n\nUser: What is {response}?"


def judge(says: Callable[[str, set[str]], str | None], killed_after: int | None = None) -> Scripted:
    """An engine that answers from the behaviour that it is asked for and the labels of the response, None where it
    fails."""

    def answer(prompt: Prompt) -> str | Response:
        text = re.search(r"<response>\n(.*)\n</response>", prompt.text, re.DOTALL)
        definitions = judged_behaviours.DEFINITIONS.items()
        (behaviour,) = [name for name, what in definitions if f"how many times {what}." in prompt.text]
        assert text
        said = says(behaviour, dict(LABELLED)[text[1]])
        return failed("too long") if said is None else said

    return Scripted(answer, killed_after=killed_after)


def generated(example: int, response: str | None, **more: Any) -> dict[str, Any]:
    """A row of generations."""
    return {
        "arm": "a1", "seed": 0, "eval": "e1", "example_id": f"{example}-0", "sample": 0, "turn": 0, "final": True,
        "prompt_sha256": "0", "response": response, "state": None, "finish_reason": "stop", "prompt_tokens": 3,
        "response_tokens": 5, "answer_tokens": 4, "logprob_sum": -1.0, "seconds": 0.1, "engine": "test",
        "error": None, **more,
    }  # fmt: skip


Job = Callable[[Scripted], list[dict[str, Any]]]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Asks a judge about the labelled rows and one that failed; gives the judgements."""
    texts = [text for text, _ in LABELLED]
    messages = [{"role": "user", "content": "?"}]
    rows = [{"example_id": f"{i}-0", "messages": messages, "reference": {"answer": "1"}} for i in range(len(texts) + 1)]
    dataset_rows.write(tmp_path / "d.parquet", "d", rows, "0")
    lost = generated(len(texts), None, error="the prompt does not fit")
    parquet.write(tmp_path / "g.parquet", "generations", [*map(generated, range(len(texts)), texts), lost])
    manifest = asking.paper(tmp_path)
    ev = Eval.model_validate({"dataset": "d", "score": "numeric", "describe": ["judged_behaviours"], "judge": "j"})
    questions = {score: judging.ScoreQuestions(**asked) for score, asked in ev.questions().items()}

    def ask(engine: Scripted) -> list[dict[str, Any]]:
        spec = asking.judging_spec(questions=questions, policy=asking.policy_spec(engine=engine.as_plugin(monkeypatch)))
        judging.run(
            manifests=[manifest],
            dataset=tmp_path / "d.parquet",
            generations=tmp_path / "g.parquet",
            others=[],
            spec=spec,
            out=tmp_path / "j.parquet",
            code="{}",
            device="cpu",
        )
        return parquet.read(tmp_path / "j.parquet", "judgements").to_pylist()

    return ask


def scored(folder: Path, judgements: Path | None) -> list[dict[str, Any]]:
    described = [Plug(name="behaviours"), Plug(name="judged_behaviours")]
    return scored_run.run(folder, scored_run.spec(describe=described, contexts=[]), judgements)


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    metrics = {**behaviours.METRICS, **judged_behaviours.METRICS, "accuracy": 1, **score_run.OF_RESPONSES}
    table = parquet.pa.Table.from_pylist(rows, schema=schemas.SCHEMAS["scores"])
    named = {"e1": {name: (name == "accuracy", way) for name, way in metrics.items()}}
    return {row["metric"]: row for row in fake.summarize(table, {"a1": ["e1"]}, named)}


def test_a_judge_that_sees_what_a_reader_sees(job: Job, tmp_path: Path) -> None:
    judgements = job(judge(lambda name, seen: f"Reasons. <count>{2 * (name in seen)}</count>"))
    assert len(judgements) == 9 * len(LABELLED) >= 9 * 40, "a response that failed is not asked about"
    rows = scored(tmp_path, tmp_path / "j.parquet")
    for i, (_, seen) in enumerate(LABELLED):
        said = {
            r["metric"]: r["value"] for r in rows if r["example_id"] == f"{i}-0" and r["metric"].startswith("judged")
        }
        assert said == {f"judged_{name}": float(name in seen) for name in behaviours.METRICS}
    shares = summary(rows)
    assert shares["judged_style_code"]["mean"] == shares["style_code"]["mean"] > 0
    assert shares["judged_style_code"]["ci_low"] < shares["judged_style_code"]["mean"]
    lost = shares["judged_subgoals"]
    assert (lost["n_attempted"], lost["n_scored"], lost["n_error"]) == (len(LABELLED) + 1, len(LABELLED), 1)


def test_what_a_judge_cannot_say_is_counted_and_never_a_zero(job: Job, tmp_path: Path) -> None:
    answers = {"subgoals": "Perhaps.", "style_plan": None}
    job(judge(lambda name, seen: answers.get(name, "<count>0</count>")))
    shares = summary(scored(tmp_path, tmp_path / "j.parquet"))
    keys = ("n_attempted", "n_scored", "n_unparsed", "n_error", "mean")
    n = len(LABELLED)
    assert [shares["judged_subgoals"][key] for key in keys] == [n + 1, 0, n, 1, None]
    assert [shares["judged_style_plan"][key] for key in keys] == [n + 1, 0, 0, n + 1, None]
    assert [shares["judged_verification"][key] for key in keys] == [n + 1, n, 0, 1, 0.0]


def test_without_a_judge_nothing_is_guessed(job: Job, tmp_path: Path) -> None:
    job(judge(lambda name, seen: "<count>1</count>"))
    rows = scored(tmp_path, None)
    judged = [row for row in rows if row["metric"] in judged_behaviours.METRICS and row["example_id"] == "0-0"]
    assert len(judged) == 9 and all(row["value"] is None and row["status"] == "unjudged" for row in judged)
    shares = summary([row for row in rows if row["example_id"] != f"{len(LABELLED)}-0"])
    assert shares["judged_verification"]["n_attempted"] == 0 and shares["judged_verification"]["mean"] is None
    assert shares["verification"]["n_scored"] == len(LABELLED), "the rules need no judge"


def test_a_killed_job_asks_only_for_the_rest(job: Job) -> None:
    broken = judge(lambda name, seen: "<count>1</count>", killed_after=3)
    with pytest.raises(RuntimeError, match="killed"):
        job(broken)
    after = judge(lambda name, seen: "<count>1</count>")
    judgements = job(after)
    assert len(broken.batches) == 3 and len(after.asked) == len(judgements) - len(broken.asked)


def test_a_judge_is_asked_greedily_and_as_long_as_the_score_says(job: Job) -> None:
    engine = judge(lambda name, seen: "<count>1</count>")
    rows = job(engine)
    prompts = [one for one in engine.asked if isinstance(one, Prompt)]
    assert len(prompts) == len(engine.asked) == len(rows)
    assert {(one.temperature, one.top_p, one.max_new_tokens) for one in prompts} == {
        (0.0, 1.0, judged_behaviours.ANSWER_TOKENS)
    }
    assert {(row["score"], row["judge"], row["error"]) for row in rows} == {("judged_behaviours", "j", None)}


def test_the_command_line_scorer_reads_answers() -> None:
    row = {"response": "text", "answers": {"subgoals": "<count>1</count>"}}
    found = verdicts(ScoreRef.model_validate("judged_behaviours"), row)
    assert found["judged_subgoals"] == 1.0 and found["judged_verification"] is None


def test_a_config_that_asks_the_wrong_judge() -> None:
    raw = {"dataset": "d", "score": "ifeval", "judge": "base"}
    with pytest.raises(ValueError, match="no score of this eval asks one; add one to `describe`: judged_behaviours"):
        Eval.model_validate(raw)
    with pytest.raises(ValueError, match="asks a judge"):
        rewards.Term.model_validate("judged_behaviours")
    model = {"wheel": "tiny==1.0", "sha256": "0" * 64}
    whole = {
        "models": {"tiny": model},
        "datasets": {"d1": {"generated": "ifeval_format", "n": 1, "instructions": "train"}},
        "evals": {"e1": {**raw, "dataset": "d1", "judge": "bass", "describe": ["judged_behaviours"]}},
        "arms": {"base": {"model": "tiny"}},
    }
    with pytest.raises(ImprintError, match=r"evals\.e1\.judge: no arm named 'bass'; did you mean 'base'"):
        loading.parse(whole)


@pytest.mark.workflow
def test_judged_from_end_to_end(tmp_path: Path) -> None:
    """The judge is an adapter that was made elsewhere."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    project = make_project(tmp_path / "project")
    model = AutoModelForCausalLM.from_pretrained(pico.make(project / "resources/local/pico"))
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    given = {"method": "given", "path": str(tmp_path / "adapter")}
    shutil.copy(Path(__file__).parent / "pico.yaml", project / "config/config.yaml")

    def change(raw: dict[str, Any]) -> None:
        raw["datasets"] = {"constraints": raw["datasets"]["constraints"]}
        described = {"score": "ifeval", "describe": ["behaviours", "judged_behaviours"]}
        raw["evals"] = {
            "constraints": {**raw["evals"]["constraints"], **described, "judge": "critic"},
            "unjudged": {"responses": "constraints", **described},
        }
        raw["arms"] = {
            "base": {"model": "pico"},
            "played": {"parent": "base", "apply": {"context": "role_play"}, "control": ["base"]},
            "critic": {"parent": "base", "fit": given, "evals": [], "resources": {"mem_mb": 321}},
        }
        raw["limit"], raw["charts"] = 4, ["scores", "behaviours"]
        del raw["questions"]

    workflow.edit(project, change)
    workflow.run(project)
    database = project / "results/limit4/imprint.duckdb"

    def counts(ev: str) -> list[tuple]:
        ask = "select n_examples, n_attempted, n_scored, n_unparsed, n_error from summary where eval = ?"
        with duckdb.connect(str(database), read_only=True) as db:
            return db.execute(f"{ask} and metric like 'judged%'", [ev]).fetchall()

    assert counts("unjudged") == [(4, 0, 0, 0, 0)] * 18, "without a judge nothing is attempted"
    assert counts("constraints") == [(4, 4, 0, 4, 0)] * 18, "a model of random weights says nothing that can be read"
    after = {"summarize", "collect", "database", "report", "plot scores", "plot behaviours"}

    def jobs(rule: str, ev: str) -> set[str]:
        return {f"{rule} {arm} 0 {ev}" for arm in ("base", "played")}

    workflow.edit(project, lambda raw: raw["evals"]["unjudged"].update(judge="critic"))
    assert workflow.planned(project) == {*jobs("judge", "unjudged"), *jobs("score", "unjudged"), *after}
    assert workflow.run(project, "-n").count("mem_mb=321") == 2, "the judge's own resources"
    workflow.edit(project, lambda raw: raw["evals"]["unjudged"].pop("judge"))
    with duckdb.connect(str(database), read_only=True) as db:
        assert db.execute("select judge, count(*) from judgements group by all").fetchall() == [("critic", 72)]
        stages = db.execute("select arm, tokens > 0 from costs where stage = 'judge' order by arm").fetchall()
    assert stages == [("base", True), ("played", True)]
    assert "72 questions, of which 72" in (project / "results/limit4/report.html").read_text()
    assert workflow.planned(project) == set()

    path = project / "workflow/scripts/imprint/scores/judged_behaviours.py"
    text = path.read_text()
    path.write_text(text.replace("float(times > 0)", "float(times > 1)"))
    judge, score = jobs("judge", "constraints"), jobs("score", "constraints")
    planned = workflow.planned(project)
    assert score <= planned and not judge & planned, "reading answers anew asks nothing"
    path.write_text(text.replace("Give your reason", "State your reason"))
    assert judge <= workflow.planned(project), "another question is asked"
    path.write_text(text)
    assert workflow.planned(project) == set()
