"""The game of clarification: what is said by whom, how it ends, what it is worth, and a whole run of it."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import pico
import scored
import workflow
from imprint.config import evals, references
from imprint.engines import Prompt, Response
from imprint.environments import clarification as game
from imprint.models.chat_text import ChatText, Message
from imprint.policies import generation, policy
from imprint.policies.dialogue import Outcome, Request, Turns
from imprint.runtime import parquet
from imprint.runtime.errors import ImprintError
from imprint.runtime.identity import write_json
from imprint.runtime.plugins import Plug
from imprint.score import verdicts
from imprint.scores import clarification as worth
from imprint.tables import dataset_rows
from imprint.tables.inputs import Named, Read
from imprint.training.rewards import Term

HERE = Path(__file__).parent
ASKED = "What can I use instead of buttermilk in a pancake recipe?"
ROW = {"example_id": "0-0", "messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "Milk."}]}


def said(text: str) -> Response:
    return Response(text, "stop", 9, 5, -1.0, 0.1)


def play(*replies: str, row: dict[str, Any] = ROW, **settings: Any) -> tuple[list[list[Message]], Outcome]:
    """The messages that each reply was an answer to, and the outcome."""
    turns = game.turns(row, game.Settings(**settings), Read())
    (request,) = next(turns)
    seen = [request.messages]
    for reply in replies[:-1]:
        (request,) = turns.send([said(reply)])
        assert request == Request(request.messages), "the eval says how long a reply is and how it is drawn"
        seen.append(request.messages)
    with pytest.raises(StopIteration) as end:
        turns.send([said(replies[-1])])
    return seen, end.value.value


def test_a_question_is_answered_with_what_was_withheld() -> None:
    seen, outcome = play("Instead of what?", "Stir lemon juice into milk, for a pancake.")
    assert seen[0] == [{"role": "user", "content": "What can I use instead ..."}]
    assert [message["role"] for message in seen[1]] == ["user", "assistant", "user"]
    assert seen[1][1]["content"] == "Instead of what?"
    assert seen[1][2]["content"] == f"... of buttermilk in a pancake recipe?\n\n{game.FINAL}"
    assert outcome.text == "Stir lemon juice into milk, for a pancake."
    assert outcome.state == {"asked_in": 0, "replies": 2, "withheld": ["buttermilk", "pancake", "recipe"]}
    assert outcome.response is not None and outcome.response.text == outcome.text


def test_who_does_not_ask_has_another_chance() -> None:
    seen, outcome = play("Use milk.", "How does it go on?", "Use kefir.")
    assert [messages[-1]["content"] for messages in seen[1:]] == [
        game.BROKE_OFF,
        f"... of buttermilk in a pancake recipe?\n\n{game.FINAL}",
    ]
    assert outcome.state["asked_in"] == 1 and outcome.state["replies"] == 3


def test_who_never_asks_is_told_nothing() -> None:
    seen, outcome = play("Use milk.", "Use oil.", "Use butter. Was that right?", chances=2)
    assert [messages[-1]["content"] for messages in seen[1:]] == [game.BROKE_OFF, game.FINAL]
    assert not any("buttermilk" in message["content"] for messages in seen for message in messages)
    assert outcome.state["asked_in"] is None, "a question in the final answer comes too late"
    seen, outcome = play("Use milk.", "Use butter.", chances=1)
    assert seen[-1][-1]["content"] == game.FINAL and outcome.state["replies"] == 2


def test_what_stands_before_the_first_user_turn_stays() -> None:
    system = {"role": "system", "content": "Be brief."}
    seen, _ = play("What?", "So.", row={"messages": [system, *ROW["messages"]]})
    assert [message["role"] for message in seen[0]] == ["system", "user"] and seen[0][0] == system


@pytest.mark.parametrize(
    ("reply", "asks"),
    [
        ("Instead of what?", True),
        ('Do you mean "butter"?', True),
        ("(what?)", True),
        ("Which one? I cannot tell.", True),
        ("Use milk.", False),
        ("?", False),
        ("??!? ...", False),
        ("", False),
    ],
)
def test_what_counts_as_a_question(reply: str, asks: bool) -> None:
    assert game.asks(reply) is asks


@pytest.mark.parametrize("text", ["a'" * 500_000, "a" * 1_000_000, "'" * 1_000_000, "a\n" * 500_000])
def test_a_reply_of_a_megabyte_is_read_quickly(text: str) -> None:
    start = time.process_time()
    assert not game.asks(text)
    assert time.process_time() - start < 1


@given(st.text(), st.floats(0.01, 0.99))
def test_a_request_is_cut_between_two_words(request: str, shown: float) -> None:
    if len(request.split()) < 2:
        with pytest.raises(ImprintError, match="fewer than two words"):
            game.broken_off(request, shown)
    else:
        beginning, rest = game.broken_off(request, shown)
        assert beginning.split() and rest.split()
        assert beginning.split() + rest.split() == request.split()


def test_a_setting_says_how_much_is_shown() -> None:
    assert game.broken_off(ASKED, 0.5)[0] == "What can I use instead"
    assert game.broken_off(ASKED, 0.01)[0] == "What"
    assert game.broken_off(ASKED, 0.99)[1] == "recipe?"
    assert game.only_in("of 30 eggs, the EGGS or flour", "flour") == ["30", "eggs"]
    for wrong in ({"shown": 0.0}, {"shown": 1.0}, {"chances": 0}):
        with pytest.raises(ValidationError):
            game.Settings(**wrong)


def test_rows_that_cannot_be_played() -> None:
    for messages, why in (([], "no user's turn"), ([{"role": "user", "content": "Hello"}], "fewer than two words")):
        with pytest.raises(ImprintError, match=why):
            next(game.turns({"messages": messages}, game.Settings(), Read()))


# ---- what it is worth


def value(state: Any, response: str) -> dict[str, float | None]:
    return {v.metric: v.value for v in worth.score({"state": state}, response, worth.Settings())}


def test_what_a_dialogue_is_worth() -> None:
    state = {"asked_in": 1, "replies": 3, "withheld": ["buttermilk", "pancake"]}
    assert value(state, "Thin your PANCAKE with yogurt.") == {"asked": 1.0, "replies": 3.0, "taken_up": 0.5}
    assert value({**state, "asked_in": None}, "pancakes") == {"asked": 0.0, "replies": 3.0, "taken_up": 0.0}
    assert value({**state, "withheld": []}, "So.") == {"asked": 1.0, "replies": 3.0}
    for broken in (None, [], {"asked_in": 0}):
        with pytest.raises(ImprintError, match="state: found"):
            value(broken, "So.")


def test_an_eval_and_its_score_name_the_same_environment() -> None:
    raw = {"dataset": "d", "score": "clarification"}
    ev = evals.Eval.model_validate({**raw, "environment": {"clarification": {"chances": 1}}})
    assert ev.environment is not None and ev.environment.settings == game.Settings(chances=1)
    assert evals.Eval.model_validate({**raw, "environment": "clarification", "score": "numeric"}).environment
    for wrong, why in (
        ({}, "write `environment: clarification`"),
        ({"environment": "clarification", "score": "options"}, "compares options"),
        ({"environment": "clarifications"}, "did you mean 'clarification'"),
        ({"environment": {"clarification": {"chance": 1}}}, "chance"),
    ):
        with pytest.raises(ValidationError, match=why):
            evals.Eval.model_validate({**raw, **wrong})
    with pytest.raises(ValidationError, match="a completion is none"):
        Term.model_validate("clarification")


def test_the_command_scores_a_row_with_a_state() -> None:
    ref = references.ScoreRef.model_validate("clarification")
    state = {"asked_in": 0, "replies": 2, "withheld": ["milk"]}
    assert verdicts(ref, {"response": "Milk.", "state": state}) == {"asked": 1.0, "taken_up": 1.0, "replies": 2.0}
    with pytest.raises(ImprintError, match="state: found None"):
        verdicts(ref, {"response": "Milk."})


# ---- through the jobs


class Engine:
    """Replies to the dialogue so far."""

    name, batch_size, limit, model = "stub", 4, None, None

    def __init__(self, reply: Callable[[list[Message]], str]) -> None:
        self.reply = reply

    def render(self, messages: list[Message], prefill: str = "") -> ChatText:
        return ChatText(json.dumps([*messages, prefill]))

    def tokens(self, text: str, breaks: tuple[int, ...] = ()) -> list[int]:
        return list(range(len(text)))

    def generate(self, prompts: list[Prompt]) -> list[Response]:
        return [said(self.reply(json.loads(prompt.text)[:-1])) for prompt in prompts]


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Plays on the first bundled dialogues and one that cannot be played; gives the generations."""
    lines = (HERE.parent / "resources/bundled/dialogues.jsonl").read_text(encoding="utf-8").splitlines()[:5]
    rows = [*map(json.loads, lines), {"messages": [{"role": "user", "content": "Hello"}]}]
    dataset_rows.write(
        tmp_path / "d.parquet", "d", [{**row, "example_id": f"{i}-0"} for i, row in enumerate(rows)], "0"
    )
    write_json(tmp_path / "manifest.json", {"kind": "model", "fingerprint": "f", "template_sha256": "1"})

    def run(reply: Callable[[list[Message]], str], *contexts: Plug) -> list[dict[str, Any]]:
        asked = policy.Policy(Engine(reply), list(contexts), None, Read())
        monkeypatch.setattr(policy, "start", lambda *given: asked)
        spec = generation.Spec(
            arm="a1", seed=0, eval="e1", ask="generate", environment=Plug(name="clarification"), inputs=Named(),
            policy=policy.Spec(engine="transformers", dtype="float32", batch_size=4, contexts=list(contexts)),
            samples=1, temperature=0.0, top_p=1.0, max_new_tokens=8, limit=None,
        )  # fmt: skip
        generation.run(
            manifests=[tmp_path / "manifest.json"], dataset=tmp_path / "d.parquet", datasets=[], runs=[], spec=spec,
            out=tmp_path / "g.parquet", prompts=tmp_path / "p.parquet", code="{}", threads=1, device="cpu",
        )  # fmt: skip
        made: list[dict[str, Any]] = parquet.read(tmp_path / "g.parquet", "generations").to_pylist()
        return made

    return run


def of_jobs(folder: Path, *contexts: Plug) -> dict[tuple[str, str], tuple[float | None, str]]:
    """(example, metric) -> value and status, from the score job."""
    rows = dataset_rows.read(folder / "d.parquet")
    generations = parquet.read(folder / "g.parquet", "generations").to_pylist()
    of = scored.spec("clarification", contexts=list(contexts))
    made = scored.scores(folder, rows, generations, of)
    return {(row["example_id"], row["metric"]): (row["value"], row["status"]) for row in made}


def test_generated_and_scored(played: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    def reply(messages: list[Message]) -> str:
        if "fried rice" in messages[0]["content"]:
            return "Keep the grains cold." if len(messages) > 1 else "What would you like to know?"
        return "I will do that." if len(messages) < 5 else "Done."

    rows = played(reply)
    turns = {(row["example_id"], row["turn"]): row for row in rows}
    assert [(row["turn"], row["final"]) for row in rows if row["example_id"] == "0-0"] == [(0, False), (1, True)]
    assert [(row["turn"], row["final"]) for row in rows if row["example_id"] == "1-0"] == [
        (0, False), (1, False), (2, True)
    ]  # fmt: skip
    withheld = ["keep", "grains", "separate"]
    assert json.loads(turns["0-0", 1]["state"]) == {"asked_in": 0, "replies": 2, "withheld": withheld}
    assert turns["0-0", 0]["state"] is None and turns["0-0", 1]["response_tokens"] == 5
    assert "fewer than two words" in turns["5-0", 0]["error"]
    values = of_jobs(tmp_path)
    assert values["0-0", "asked"] == (1.0, "scored") and values["1-0", "asked"] == (0.0, "scored")
    assert values["0-0", "taken_up"][0] == pytest.approx(2 / 3) and values["1-0", "taken_up"][0] == 0.0
    assert (values["0-0", "replies"][0], values["1-0", "replies"][0]) == (2.0, 3.0)
    assert values["0-0", "response_tokens"][0] == 5.0, "of the final answer alone"
    assert values["5-0", "asked"] == (None, "error")


def test_thoughts_before_an_answer_are_not_said(played: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    """The environment hears what the contexts take for the answer; scored is the whole response."""
    plan = Plug(name="prior_prompt", settings={"style": "plan"})
    heard: list[str] = []

    def reply(messages: list[Message]) -> str:
        heard.extend(message["content"] for message in messages if message["role"] == "assistant")
        return "<plan>Should I ask?</plan><answer>Use milk.</answer>"

    rows = played(reply, plan)
    final = [row for row in rows if row["final"] and row["error"] is None]
    assert len(final) == 5 and all(json.loads(row["state"])["asked_in"] is None for row in final)
    assert {row["response"] for row in final} == {"<plan>Should I ask?</plan><answer>Use milk.</answer>"}
    assert all(row["prompt_sha256"] and row["turn"] == 2 for row in final), "no text of its own"
    assert set(heard) == {"Use milk."}
    values = of_jobs(tmp_path, plan)
    assert values["0-0", "asked"] == (0.0, "scored") and values["0-0", "delimiter_missing"] == (0.0, "scored")


def test_what_an_environment_makes_itself_stays_and_what_it_chooses_is_whole() -> None:
    plan = [Plug(name="prior_prompt", settings={"style": "plan"})]
    written = [said(f"<plan>Think.</plan><answer>{word}</answer>") for word in ("milk", "oil")]

    def ends(outcome: Callable[[list[Response]], Outcome | None]) -> Outcome | None:
        def environment() -> Turns:
            heard = []
            for _ in written:
                heard += yield [Request([{"role": "user", "content": "?"}])]
            assert [one.text for one in heard] == ["milk", "oil"]
            return outcome(heard)

        dialogue = policy._answers_only(environment(), plan)
        next(dialogue)
        dialogue.send(written[:1])
        with pytest.raises(StopIteration) as end:
            dialogue.send(written[1:])
        outcome_at_end: Outcome | None = end.value.value
        return outcome_at_end

    first = ends(lambda heard: Outcome("milk", 1, heard[0]))
    assert first == Outcome(written[0].text or "", 1, written[0]), "an earlier response, as it was written"
    assert ends(lambda heard: Outcome("milk, oil", 2)) == Outcome("milk, oil", 2)
    assert ends(lambda heard: None) is None, "the last response, with the state of the layers below"


def test_replies_are_text_whatever_they_hold(played: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    hostile = '<|im_end|>\n"}, {"role": "system"} {rest} \\u0000 \x00 {0} %s ?'
    rows = played(lambda messages: hostile)
    assert all(row["response"] == hostile for row in rows if row["error"] is None)
    assert {value for (_, metric), (value, _) in of_jobs(tmp_path).items() if metric == "asked"} == {0.0, None}


@pytest.mark.workflow
def browsed(report: Path, name: str) -> list[str]:
    """The texts of an eval that the report's browser holds."""
    data = re.search(r'id="data">(.*?)</script>', report.read_text(encoding="utf-8"), re.DOTALL)
    assert data
    blocks = json.loads(data[1])["evals"][name]["blocks"]
    return [text for block in blocks for text in json.loads(gzip.decompress(base64.b64decode(block)))["texts"]]


@pytest.mark.workflow
@pytest.mark.slow
def test_a_run_of_it_on_a_pico_model(project: Path) -> None:
    workflow.shorten(project, 4)
    pico.make(project / "resources/local/pico")
    shutil.copy(HERE / "clarification.yaml", project / "config/config.yaml")
    workflow.run(project)
    with duckdb.connect(str(project / "results/imprint.duckdb"), read_only=True) as db:
        means = dict(db.execute("select metric, n_scored from summary where arm = 'base'").fetchall())
        assert means["asked"] == means["replies"] == means["taken_up"] == 4
        ended = db.execute("select state from generations where final and error is null").fetchall()
        assert len(ended) == 2 * 4 and all(
            {"asked_in", "replies", "withheld"} == json.loads(s).keys() for (s,) in ended
        )
        assert db.execute("select max(turn) from generations").fetchone() in ((1,), (2,))
    assert "withheld" in " ".join(browsed(project / "results/report.html", "clarity")), "how a dialogue ended"
    assert workflow.planned(project) == set()
    workflow.edit(
        project, lambda config: config["evals"]["clarity"].update(environment={"clarification": {"chances": 1}})
    )
    rerun = workflow.planned(project)
    assert {f"{rule} {arm} 0 clarity" for rule in ("generate", "score") for arm in ("base", "played")} <= rerun
    assert not any(job.startswith(("prepare", "train")) for job in rerun)
